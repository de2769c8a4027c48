"""`/v1/auth` (docs/reference/http-api.md#log-in)."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import format_datetime
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.types import Message

from factory_logs.api.dependencies import Reader, ServicesDep, Writer
from factory_logs.api.http.request_body import Body
from factory_logs.api.openapi.document import document_body, errors
from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError, UnsupportedMediaTypeError
from factory_logs.ingest.validation import field_errors, parse_model
from factory_logs.schemas.auth import (
    Credentials,
    LoginMessage,
    LoginResponse,
    LoginSuccessful,
    LogoutResponse,
    UserValidity,
)

router = APIRouter(prefix="/v1/auth", tags=["auth"])
_URLENCODED = "application/x-www-form-urlencoded"
_FORMS = (_URLENCODED, "multipart/form-data")
_MOST_FORM_FIELDS = 20


def _login_body() -> dict[str, object]:
    extra = document_body(Credentials)
    content = extra["requestBody"]["content"]
    for form in _FORMS:
        content[form] = content["application/json"]
    return extra


@router.post(
    "/login",
    response_model=LoginResponse,
    responses=errors(400, 401, 408, 413, 415, 429, 503),
    openapi_extra=_login_body(),
)
async def login(request: Request, response: Response, services: ServicesDep) -> LoginResponse:
    """Return a token for a username and password, sent as a form or as JSON."""
    response.headers["Cache-Control"] = "no-store"
    credentials = await _credentials(request, services)
    address = request.client.host if request.client else ""
    result = await services.login.login(credentials.username, credentials.password, address)
    return LoginResponse(
        message=LoginMessage(
            login_successful=LoginSuccessful(
                username=result.username,
                entity_id=result.user_id,
                display_name=result.display_name,
                name=result.display_name,
                API_token=result.token,
                token_expiry=format_datetime(result.expires_at.replace(tzinfo=UTC), usegmt=True),
                permissions=result.level,
            )
        )
    )


@router.post("/logout", responses=errors(401, 403, 503))
async def logout(request: Request, response: Response, user: Reader, services: ServicesDep) -> LogoutResponse:
    """Revoke the token of this request. This worker rejects it at once, the others within 5 seconds."""
    response.headers["Cache-Control"] = "no-store"
    address = request.client.host if request.client else ""
    await services.login.logout(user, request.headers["authorization"], address)
    return LogoutResponse(message="The token has ended")


async def _credentials(request: Request, services: Services) -> Credentials:
    """Return the username and password in the body. The limit on its size is small, because the client is still
    unknown."""
    content_type = request.headers.get("content-type", "").lower()
    is_form = content_type.startswith(_FORMS)
    if not is_form and "json" not in content_type:
        raise UnsupportedMediaTypeError("A login must be JSON or a form, with the matching Content-Type")
    headers = dict(request.scope["headers"])
    with Body(headers, request.receive, services.settings, services.bodies, services.settings.max_login_bytes) as body:
        if not is_form:
            body.require_json()
        text = await body.read()
    if not is_form:
        return parse_model(Credentials, text)
    fields = _urlencoded(text) if content_type.startswith(_URLENCODED) else await _multipart(request, text)
    values = {name: fields[name] for name in ("username", "password") if name in fields}
    try:
        return Credentials.model_validate(values)
    except ValidationError as error:
        raise BadRequestError("Validation failed", list(field_errors(error))) from None


def _urlencoded(text: bytes) -> Mapping[str, object]:
    """Return the fields of a form, as UTF-8, percent-encoded or not. Raises BadRequestError."""
    try:
        return dict(parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=_MOST_FORM_FIELDS))
    except UnicodeDecodeError:
        raise BadRequestError("Unable to decode data: the form is not UTF-8") from None
    except ValueError:
        raise BadRequestError(f"Unable to decode data: the form has more than {_MOST_FORM_FIELDS} fields") from None


async def _multipart(request: Request, text: bytes) -> Mapping[str, object]:
    async def receive_again() -> Message:
        return {"type": "http.request", "body": text}

    try:
        async with Request(request.scope, receive_again).form(max_files=0, max_fields=_MOST_FORM_FIELDS) as form:
            return dict(form)
    except UnicodeError:  # the charset `undefined` raises this error for any text
        raise BadRequestError("Unable to decode data: the form is not in its charset") from None


@router.get("/validate_user", responses=errors(400, 401, 403, 503))
async def validate_user(
    _: Writer, services: ServicesDep, username: Annotated[str, Query(examples=["admin"])]
) -> UserValidity:
    """Return whether a user with this name exists."""
    if await services.users.exists(username):
        return UserValidity(message="The user exists", data="True")
    return UserValidity(message="The user does not exist", data="False")
