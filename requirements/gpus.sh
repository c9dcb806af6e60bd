#!/bin/sh
# Print how many NVIDIA GPUs a run may use: 0 without a driver or a card, and no more than CUDA_VISIBLE_DEVICES names.
found=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
  visible=$(printf '%s\n' "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | grep -vc '^ *$\|^-')
  [ "$visible" -ge "$found" ] || found=$visible
fi
echo "$found"
