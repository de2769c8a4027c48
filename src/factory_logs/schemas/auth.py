"""The models of login and validate_user, compatible with the legacy API (docs/reference/http-api.md#log-in)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LOGIN_HOURS = 3
"""The default time, in hours, after which an unused token from a login expires; the setting is `session_idle_seconds`.

It is not in settings.py, because `tokens --help` shows it on devices too, where settings.py cannot be imported.
"""


class Credentials(BaseModel):
    """A username and password."""

    model_config = ConfigDict(strict=True)

    username: str = Field(examples=["ann"], max_length=255)
    password: str = Field(examples=["correct horse battery staple"], max_length=1024)


class LoginSuccessful(BaseModel):
    """The user who logged in, and the token. The field names are from the legacy API."""

    username: str = Field(examples=["ann"])
    entity_id: int = Field(description="The user's id", examples=[2])
    display_name: str = Field(examples=["Ann"])
    name: str = Field(description="The same as display_name", examples=["Ann"])
    user_product_visibility: Literal["GLOBAL"] = "GLOBAL"
    hub_id: None = None
    shop_id: None = None
    API_token: str = Field(
        description="64 characters. Only this response contains it; the service stores only its hash",
        examples=["J7lPbxpnSdjkOoqOWM2bwtELJa29ABPwrxPgkfCJEKoCI6gMWKxrTyTGcWCc4mVQ"],
    )
    token_expiry: str = Field(
        description="When the token expires if it is not used until then", examples=["Mon, 01 Aug 2016 17:05:11 GMT"]
    )
    permissions: str = Field(examples=["SYSTEM"])


class LoginMessage(BaseModel):
    """The object around the user and the token in the legacy API."""

    login_successful: LoginSuccessful


class LoginResponse(BaseModel):
    """A successful login."""

    status: Literal["success"] = "success"
    message: LoginMessage


class LogoutResponse(BaseModel):
    """The token of the request is revoked."""

    status: Literal["success"] = "success"
    message: str = Field(examples=["The token has ended"])


class UserValidity(BaseModel):
    """Whether the user exists."""

    status: Literal["success"] = "success"
    message: str = Field(examples=["The user exists"])
    data: Literal["True", "False"]
