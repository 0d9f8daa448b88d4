"""The protocol of Trimtab, once for the server, the client and the tools."""
