# The environment of `make setup`, from the same locks, on Linux x86-64 (and aarch64 with HARDWARE=gpu).
#
#   docker build -t scalequest .                                   # CPU
#   docker build --build-arg HARDWARE=gpu -t scalequest:gpu .      # NVIDIA; needs the container toolkit and --gpus all
#   docker run --rm -it -v "$PWD":/scalequest scalequest make repro
#
# The sandbox needs user namespaces inside of the container; SECURITY.md says what to do where Docker refuses them.
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim-bookworm

# A compiler: some packages have no wheel, and vLLM compiles kernels on a CPU. libseccomp2: the sandbox. libnuma1: vLLM.
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential git libnuma1 libseccomp2 make \
 && rm -rf /var/lib/apt/lists/*

# Outside of the working folder, so that a mounted checkout does not hide it.
ARG HARDWARE=cpu
ENV HARDWARE=${HARDWARE} VENV=/opt/venv PATH=/opt/venv/bin:${PATH}
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /scalequest
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY scalequest scalequest
COPY stages stages
RUN make setup && git config --system --add safe.directory /scalequest

COPY . .
CMD ["make", "help"]
