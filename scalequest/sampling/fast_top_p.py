"""A faster top-p for vLLM on CPU, token for token the same.

vLLM sorts the whole vocabulary of every row at every step to find the nucleus. Over 49k tokens on
two cores that costs a quarter of the time of a 135M model (201 against 266 generated tokens/s,
benchmarks/README.md). The nucleus is nearly always inside the largest 1,024 logits: find those, and
sort only the rows whose nucleus is wider.
"""

from typing import Any

CANDIDATES = 1024


def install_fast_top_p() -> None:
    """Replace vLLM's top-p in this process, where the platform is CPU and only top-p is asked for."""
    import torch
    from vllm.v1.sample.ops import topk_topp_sampler as sampler

    if getattr(sampler.apply_top_k_top_p, "is_fast", False):
        return
    exact = sampler.apply_top_k_top_p

    def apply(logits: Any, k: Any, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Mask logits (B, V) outside each row's nucleus of mass p (B,) with -inf; B rows, V vocabulary."""
        if k is not None or p is None or logits.shape[-1] <= CANDIDATES:
            return exact(logits, k, p, *args, **kwargs)
        logits = logits.float()
        top = torch.topk(logits, CANDIDATES, dim=-1).values
        mass = torch.exp(top - torch.logsumexp(logits, dim=-1, keepdim=True))
        # A token belongs to the nucleus when the mass before it is below p: the smallest set that
        # reaches p.
        inside = mass.cumsum(-1) - mass < p.unsqueeze(1)
        n = inside.sum(-1, keepdim=True)
        smallest = top.gather(1, n - 1)
        masked = logits.masked_fill(logits < smallest, -float("inf"))
        # Exact for the rest: rows whose nucleus is wider, and rows where a tie at its edge lets in
        # more than vLLM's sort does.
        tied = top.gather(1, n.clamp(max=CANDIDATES - 1)) == smallest
        wide = (inside[:, -1] | tied.squeeze(1)).nonzero().flatten()
        if len(wide):
            masked[wide] = exact(logits[wide], None, p[wide], *args, **kwargs)
        return masked

    apply.is_fast = True  # type: ignore[attr-defined]
    sampler.apply_top_k_top_p = apply
