"""The Trimtab contract: protobuf messages and gRPC stubs."""
