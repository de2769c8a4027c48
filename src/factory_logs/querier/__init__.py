"""Read logs: pages, counts, cursors, exports, the tail, stats and test results
(docs/reference/http-api.md#the-query-language-q)."""
