"""HTTP code that all routes share: bodies, responses, content coding, cursors, errors."""
