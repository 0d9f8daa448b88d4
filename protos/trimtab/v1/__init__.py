"""The stateless contract, generated from the .proto files beside it."""
