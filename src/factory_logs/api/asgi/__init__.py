"""The ASGI layers between uvicorn and FastAPI: the protocol class, the dispatcher, routes that bypass FastAPI."""
