"""Between protobuf messages and the domain, both ways; shared by the server and the client."""
