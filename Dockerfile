# The `thalweg` binary with the dataflows of this repository. Builder and runtime are the same Debian, so that the
# binary finds the C library it was linked against.
FROM rust:1.95-bookworm AS build
# The image's own toolchain is the one that rust-toolchain.toml names; without this rustup would fetch its extras.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --release --locked -p dataflows --bin thalweg \
        --features thalweg/object-store,thalweg/postgres,thalweg/protobuf,thalweg/json-schema \
    && install -D /target/release/thalweg /out/thalweg

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/thalweg thalweg
COPY --from=build /out/thalweg /usr/local/bin/thalweg
USER thalweg
WORKDIR /var/lib/thalweg
# Ledger and checkpoints.
VOLUME /var/lib/thalweg
ENTRYPOINT ["thalweg"]
CMD ["run"]
