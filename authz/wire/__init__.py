"""Between protobuf messages and the domain, both ways; shared by the server and the client.

Records and the queries for them follow from the descriptions of their kinds (`fields`, `entities`,
`filters`): a new field needs no code here. Nothing describes questions and answers: the other modules convert
them.
"""
