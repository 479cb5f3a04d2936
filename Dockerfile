# The service and the bundles: no torch, no compiler.
#   docker build --build-arg EXTRA=serve|serve-gpu --build-arg REVISION="$(git rev-parse --short HEAD)" .

FROM python:3.11-slim-bookworm AS packages
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml ./
ARG EXTRA=serve
# Empty packages stand in for the source: only the requirements are wanted here, and a change of source installs nothing anew.
RUN mkdir -p client kernels model export service/oip && touch README.md LICENSE \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check ".[$EXTRA]"

# The native kernel is compiled here, and the compiler stays here.
FROM python:3.11-slim-bookworm AS kernel
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY kernels kernels
RUN indrnn kernels

FROM python:3.11-slim-bookworm
# A new volume at /data takes over this directory's owner.
RUN groupadd --gid 10001 indrnn \
    && useradd --uid 10001 --gid indrnn --home-dir /tmp --no-create-home --shell /usr/sbin/nologin indrnn \
    && install -d -o indrnn -g indrnn -m 0700 /data
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE ./
COPY bundles bundles
COPY --from=kernel /app/kernels kernels
COPY export export
COPY service service
ARG REVISION=unknown
# Compiled now: the running container cannot write.
RUN echo "$REVISION" > REVISION && python -m compileall -q kernels export service
# onnxruntime reports its use to its maker unless told not to before it is loaded.
ENV ORT_DISABLE_TELEMETRY=1
ENV PATH=/opt/venv/bin:$PATH HOST=0.0.0.0 PORT=8000 INDRNN_BUNDLES=/app/bundles INDRNN_STORE=/data/sessions.db
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "indrnn", "serve"]
