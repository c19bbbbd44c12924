# flowkit in a container.
#   docker build -t flowkit .                              for CPUs
#   docker build -t flowkit --build-arg CUDA=1 .           for NVIDIA GPUs, with the host's driver (docker run --gpus all)
#   docker run --rm -v "$PWD:/work" flowkit extract videos/
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG CUDA=0
ARG PREFIX=/opt/flowkit
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /source
COPY . .
RUN python -m venv "$PREFIX"
# Without CUDA, the CPU builds of torch and torchvision, which are much smaller than PyPI's.
RUN if [ "$CUDA" = 0 ]; then "$PREFIX/bin/pip" install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; fi
RUN if [ "$CUDA" = 0 ]; then extras=cluster; else extras=cluster,cuda; fi; \
    "$PREFIX/bin/pip" install --no-cache-dir ".[$extras]"
RUN "$PREFIX/bin/flowkit" --version

ENV PATH="$PREFIX/bin:$PATH"
WORKDIR /work
ENTRYPOINT ["flowkit"]
CMD ["--help"]
