"""Between protobuf messages and the domain, both ways. Strings of a request are parsed here."""
