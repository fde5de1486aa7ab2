"""Do workers of a real web server really share state without a server between them? `python -m examples.demo` shows it.

uvicorn serves `app` with four workers. Each embeds a gossip node (`app`, `workers`). Another process visits them over
HTTP (`load`), one worker is killed, uvicorn replaces it (`server`), and the terminal shows live what each worker sees
(`screen`), since the demo itself is one more node of the cluster (`story`). In the end every node is asked what it
holds (`evidence`), and that is compared with what was answered (`verdict`).
"""
