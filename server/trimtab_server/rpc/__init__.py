"""The gRPC endpoint: the only code of the server that uses gRPC and protobuf."""
