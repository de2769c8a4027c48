"""The httpx transport of a simulated device: one connection of the standard library's http.client.

httpx's own transport parses HTTP in Python and keeps a pool. For a device that sends one request after the other, it
takes 1.7 times the processor time of this one (docs/how-to/loadtest.md#the-cost-of-a-request).
"""

import http.client
import ssl
import time

import httpx

LONGEST_IDLE_SECONDS = 3.0
"""A connection that was not used for longer is opened again: the server may have closed it."""


class DeviceTransport(httpx.BaseTransport):
    """Sends requests to one host over one connection. The connection is opened by the first request, and again after an
    error. Do not share a transport between threads.

    `context` is used for `https` URLs. A request that waits longer than `timeout_seconds` for the server fails.
    """

    def __init__(self, context: ssl.SSLContext, timeout_seconds: float) -> None:
        self._context = context
        self._timeout_seconds = timeout_seconds
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response, which has been read. Raises httpx.TransportError."""
        connection = self._connected(request.url)
        try:
            connection.request(request.method, request.url.raw_path.decode(), request.content, dict(request.headers))
            response = connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            self.close()
            raise httpx.ReadTimeout(str(error)) from error
        except http.client.HTTPException as error:
            self.close()
            raise httpx.RemoteProtocolError(str(error)) from error
        except OSError as error:
            self.close()
            raise httpx.ReadError(str(error)) from error
        self._used_at = time.monotonic()
        return httpx.Response(response.status, headers=response.getheaders(), content=content, request=request)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self, url: httpx.URL) -> http.client.HTTPConnection:
        """Return the open connection, or open one."""
        connection = self._connection
        is_idle = time.monotonic() - self._used_at > LONGEST_IDLE_SECONDS
        if connection is not None and connection.sock is not None and not is_idle:
            return connection
        self.close()
        # Always with a port: http.client would look for one in an IPv6 address.
        host, port = url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)
        connection = self._connection = (
            http.client.HTTPSConnection(host, port, timeout=self._timeout_seconds, context=self._context)
            if url.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        )
        try:
            connection.connect()
        except TimeoutError as error:
            self.close()
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            self.close()
            raise httpx.ConnectError(str(error)) from error
        return connection
