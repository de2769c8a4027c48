# syntax=docker/dockerfile:1

FROM python:3.11-slim AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /app

# The dependencies first: this layer is built again only when the lock changes.
COPY pyproject.toml uv.lock README.md ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --extra server --no-install-project

COPY alembic ./alembic
COPY src ./src
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --extra server


FROM python:3.11-slim
# A system user's number, so that useradd does not warn and no person of the host has it.
RUN useradd --system --uid 990 --user-group --no-create-home --shell /usr/sbin/nologin factory-logs \
    && install -d -o factory-logs -g factory-logs /data
# The same path as in the build stage: the venv's scripts and its link to src name it,
# and `migrate` finds alembic/ beside src/. Root owns it; the service writes nothing there.
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FACTORY_LOGS_DATA_DIR=/data \
    FACTORY_LOGS_HOST=0.0.0.0 \
    FACTORY_LOGS_PORT=8000
WORKDIR /app
USER factory-logs
# Only for the embedded PostgreSQL, that is, where FACTORY_LOGS_DATABASE_URL is not set.
VOLUME /data
EXPOSE 8000
# Another port is set by FACTORY_LOGS_PORT, not by --port, so that the health check knows of it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"FACTORY_LOGS_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["factory-logs"]
CMD ["serve"]
