# syntax=docker/dockerfile:1
# The command distill, as no root, in 64 MB of /dev/shm.
#   docker build -t distill .                                  on the CPU
#   docker build -t distill:cuda --build-arg TORCH=cu126 .     on CUDA: which releases there are, 'uv pip install --help' says
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/work" distill adapt photos --names names.txt --out model
#   docker run --rm --gpus all -u "$(id -u):$(id -g)" -v "$PWD:/work" distill:cuda train artifacts/photos --out runs/first
# Weights that are fetched by name are kept with -v distill-weights:/home/distill/.cache.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS built
ARG TORCH=cpu
ARG EXTRAS=export,serve
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON=/opt/distill/bin/python
RUN --mount=type=cache,target=/root/.cache pip install --disable-pip-version-check "uv>=0.8" && python -m venv /opt/distill
WORKDIR /source
# What is large and seldom changes is a layer of its own.
COPY scripts/constraints.txt scripts/constraints.txt
RUN --mount=type=cache,target=/root/.cache uv pip install --torch-backend "$TORCH" -c scripts/constraints.txt torch torchvision
COPY . .
RUN --mount=type=cache,target=/root/.cache uv pip install --torch-backend "$TORCH" -c scripts/constraints.txt ".[$EXTRAS]"

FROM python:${PYTHON}-slim
COPY --from=built /opt/distill /opt/distill
# A user whom no file of the image knows (docker run -u) has a home and a name too: libraries keep their files there.
RUN useradd --uid 1000 --create-home distill && mkdir /work /home/distill/.cache \
    && chown distill:distill /work && chmod 1777 /home/distill /home/distill/.cache
ENV PATH=/opt/distill/bin:$PATH HOME=/home/distill USER=distill PYTHONUNBUFFERED=1
USER distill
WORKDIR /work
ENTRYPOINT ["distill"]
CMD ["--help"]
