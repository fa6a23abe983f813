"""Composes and runs the processes of the service.

`authz serve` is one process: over grpc.aio it runs `serve`; else it becomes Envoy, which runs `application`.
With workers, it runs `supervise`, whose children (`child`) are the follower and the workers, each of them as
above. `authz follow` runs `follow`. All show that they do not hang by `liveness.run_beating`.
"""
