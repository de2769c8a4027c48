"""`/v1/auth` (SPEC 2, 3)."""

from datetime import UTC
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.types import Message

from factory_logs.api.bodies import Body
from factory_logs.api.deps import ServicesDep, Writer
from factory_logs.api.openapi import document_body, errors
from factory_logs.api.services import Services
from factory_logs.db.users import UserRepository
from factory_logs.errors import BadRequestError, UnsupportedMediaTypeError
from factory_logs.ingest.records import field_errors, parse_model
from factory_logs.schemas.auth import Credentials, LoginAnswer, LoginMessage, LoginSuccessful, UserValidity

router = APIRouter(prefix="/v1/auth", tags=["auth"])
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def _login_body() -> dict[str, object]:
    extra = document_body(Credentials)
    content = extra["requestBody"]["content"]
    for form in _FORMS:
        content[form] = content["application/json"]
    return extra


@router.post(
    "/login",
    response_model=LoginAnswer,
    responses=errors(400, 401, 408, 413, 415, 429, 503),
    openapi_extra=_login_body(),
)
async def login(request: Request, response: Response, services: ServicesDep) -> LoginAnswer:
    """A token for a username and password, sent as a form or as JSON."""
    response.headers["Cache-Control"] = "no-store"
    credentials = await _credentials(request, services)
    address = request.client.host if request.client else ""
    result = await services.login.login(credentials.username, credentials.password, address)
    return LoginAnswer(
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


async def _credentials(request: Request, services: Services) -> Credentials:
    """Nobody is known yet: what is read is small, and like every body it must come in time."""
    content_type = request.headers.get("content-type", "").lower()
    is_form = content_type.startswith(_FORMS)
    if not is_form and "json" not in content_type:
        raise UnsupportedMediaTypeError("The login is read as JSON or as a form; say so in Content-Type")
    headers = dict(request.scope["headers"])
    with Body(headers, request.receive, services.settings, services.bodies, services.settings.max_login_bytes) as body:
        if not is_form:
            body.require_json()
        text = await body.whole()
    if not is_form:
        return parse_model(Credentials, text)

    async def receive_again() -> Message:
        return {"type": "http.request", "body": text}

    async with Request(request.scope, receive_again).form(max_files=0, max_fields=20) as form:
        values = {name: form[name] for name in ("username", "password") if name in form}
    try:
        return Credentials.model_validate(values)
    except ValidationError as error:
        raise BadRequestError("Validation failed", list(field_errors(error))) from None


@router.get("/validate_user", responses=errors(400, 401, 403, 503))
async def validate_user(
    _: Writer, services: ServicesDep, username: Annotated[str, Query(examples=["admin"])]
) -> UserValidity:
    """Whether there is a user of this name."""
    if await UserRepository(services.database).exists(username):
        return UserValidity(message="The user exists", data="True")
    return UserValidity(message="The user does not exist", data="False")
