# One image for every service of ImageInvoker; which one it is says the command.
#
#   docker build -t imageinvoker .
#   docker run --rm imageinvoker menu --help

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build

# Every package has the hash of its lock file; none is built here but ours.
COPY requirements/build.lock requirements/services.lock requirements/
RUN python -m venv tools \
    && tools/bin/pip install --require-hashes --only-binary=:all: -r requirements/build.lock \
    && python -m venv --without-pip /opt/imageinvoker \
    && tools/bin/pip --python /opt/imageinvoker/bin/python install \
        --require-hashes --only-binary=:all: -r requirements/services.lock

COPY pyproject.toml README.md LICENSE ./
COPY boot boot
COPY bus bus
COPY cli cli
COPY client client
COPY engine engine
COPY estate estate
COPY express express
COPY services services
RUN tools/bin/pip wheel --no-deps --no-build-isolation -w dist . \
    && tools/bin/pip --python /opt/imageinvoker/bin/python install --no-deps dist/*.whl


FROM python:3.11.14-slim-bookworm
# ODBC drivers for SQLite, PostgreSQL and SQL Server (FreeTDS).
RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends libodbc2 libsqliteodbc odbc-postgresql tdsodbc \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin imageinvoker
COPY --from=build /opt/imageinvoker /opt/imageinvoker
ENV PATH=/opt/imageinvoker/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["imageinvoker"]
CMD ["--help"]
