"""The q language, usable without the web: parse to a typed AST, check it, compile it to SQLAlchemy."""
