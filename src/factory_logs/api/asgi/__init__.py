"""The layers between uvicorn and FastAPI: the protocol class, the dispatcher, and routes that bypass FastAPI."""
