"""What every answer tells a browser to refrain from."""

from flask import Flask, Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
ALWAYS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
}
YEAR_S = 365 * 24 * 3600
PERSONAL = ("application/json", "application/problem+json", "text/html", "text/plain")


def install(app: Flask, strict_transport: bool) -> None:
    """Add the headers that an answer does not set itself.

    Args:
        app: answers.
        strict_transport: whether browsers shall never again come without TLS.
    """
    more = {"Strict-Transport-Security": f"max-age={YEAR_S}"} if strict_transport else {}

    @app.after_request
    def add(response: Response) -> Response:
        for name, value in {**ALWAYS, **more}.items():
            response.headers.setdefault(name, value)
        if response.mimetype in PERSONAL:
            response.headers.setdefault("Cache-Control", "no-store")
        return response
