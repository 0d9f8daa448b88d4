"""The gRPC face of the server: the only code that knows gRPC and the wire's messages."""
