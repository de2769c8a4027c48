"""Login and validate_user, in the shape of the legacy API (SPEC 2)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Credentials(BaseModel):
    """A username and its password."""

    model_config = ConfigDict(strict=True)

    username: str = Field(examples=["ann"], max_length=255)
    password: str = Field(examples=["correct horse battery staple"], max_length=1024)


class LoginSuccessful(BaseModel):
    """Who logged in, and the token. The names are legacy's."""

    username: str = Field(examples=["ann"])
    entity_id: int = Field(description="The user's id", examples=[2])
    display_name: str = Field(examples=["Ann"])
    name: str = Field(description="The same as display_name", examples=["Ann"])
    user_product_visibility: Literal["GLOBAL"] = "GLOBAL"
    hub_id: None = None
    shop_id: None = None
    API_token: str = Field(
        description="64 characters; shown this once, stored only as a hash",
        examples=["J7lPbxpnSdjkOoqOWM2bwtELJa29ABPwrxPgkfCJEKoCI6gMWKxrTyTGcWCc4mVQ"],
    )
    token_expiry: str = Field(description="After three hours without use", examples=["Mon, 01 Aug 2016 17:05:11 GMT"])
    permissions: str = Field(examples=["SYSTEM"])


class LoginMessage(BaseModel):
    """The wrapping of legacy."""

    login_successful: LoginSuccessful


class LoginAnswer(BaseModel):
    """A good login."""

    status: Literal["success"] = "success"
    message: LoginMessage


class UserValidity(BaseModel):
    """Whether there is such a user."""

    status: Literal["success"] = "success"
    message: str = Field(examples=["The user exists"])
    data: Literal["True", "False"]
