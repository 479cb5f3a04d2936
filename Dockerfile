# The service and the bundles: no torch, no compiler.
#   docker build --build-arg EXTRA=serve|serve-gpu --build-arg REVISION="$(git rev-parse --short HEAD)" .
#   --build-arg PAGE="--add runtime --add camera": the page with the camera too

FROM python:3.11-slim-bookworm AS packages
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY locks locks
ARG EXTRA=serve
# The requirements alone, in the versions and with the hashes of the lock: a change of source installs nothing anew.
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r "locks/$EXTRA.txt"

# The native kernel is compiled here, and the compiler stays here.
FROM python:3.11-slim-bookworm AS kernel
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY indrnn indrnn
COPY kernels kernels
RUN python -m indrnn kernels

# The live page is built here, and node stays here.
FROM python:3.11-slim-bookworm AS page
WORKDIR /app
COPY locks locks
RUN python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes -r locks/node.txt
COPY page page
ARG PAGE="--add runtime"
RUN python page/build.py $PAGE

FROM python:3.11-slim-bookworm
# A new volume at /data takes over this directory's owner.
RUN groupadd --gid 10001 indrnn \
    && useradd --uid 10001 --gid indrnn --home-dir /tmp --no-create-home --shell /usr/sbin/nologin indrnn \
    && install -d -o indrnn -g indrnn -m 0700 /data
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE ./
COPY NOTICE ./
COPY bundles bundles
COPY --from=kernel /app/kernels kernels
COPY indrnn indrnn
COPY export export
COPY frames frames
COPY service service
COPY --from=page /app/service/http/static service/http/static
ARG REVISION=unknown
# Compiled now: the running container cannot write. The folders, because compileall follows no link.
RUN echo "$REVISION" > indrnn/REVISION && python -m compileall -q indrnn kernels export frames service
# onnxruntime reports its use to its maker unless told not to before it is loaded.
ENV ORT_DISABLE_TELEMETRY=1
ENV PATH=/opt/venv/bin:$PATH HOST=0.0.0.0 PORT=8000 INDRNN_BUNDLES=/app/bundles INDRNN_STORE=/data/sessions.db
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "indrnn", "serve"]
