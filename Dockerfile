# The daemon and the command line in one image. The program is static: build it
# with `make build` first. Where debian:bookworm-slim cannot be pulled,
# testnet/compose/base-image.sh makes it from Debian's packages.
FROM debian:bookworm-slim
COPY bin/dcnode /usr/local/bin/dcnode
ENV DCNODE_DATA=/data
EXPOSE 4001/tcp 4001/udp
ENTRYPOINT ["dcnode"]
