import pytest

from scalequest.errors import UserError
from scalequest.redaction import (
    MASK,
    address_problem,
    api_key,
    holding_secrets,
    redacted,
    redacted_all,
    refuse_secrets,
    secret_in,
    secret_values,
    without_values,
)

# Shaped like the services' tokens, and no one's. Put together here, so that no scanner takes this file for a leak.
TOKENS = [
    "ghp_" + "A1b2" * 9, "github_pat_" + "A1b2" * 9, "glpat-" + "A1b2" * 5, "hf_" + "AbCd" * 8, "sk-" + "proj-" + "A1b2" * 8,
    "sk-ant-" + "A1b2" * 8, "AKIA" + "ABCD1234" * 2, "xoxb-" + "1234567890-abc", "AIza" + "A1b2C" * 7, "npm_" + "A1b2" * 9,
    "gsk_" + "A1b2" * 8, "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTYifQ.dozjgNryP4J3",
]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:6])
@pytest.mark.parametrize(
    "text", ["{}", "key={}&x=1", "Authorization: Bearer {}", '{{"auth": "{}"}}', "https://{}@host/r", "({})"]
)
def test_a_token_is_masked_wherever_it_is(token: str, text: str) -> None:
    found = redacted(text.format(token))
    assert token not in found
    assert MASK in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:pa55@db/x and https://host/v1", f"postgresql://{MASK}@db/x and https://host/v1"),
        ("Authorization: Bearer abcdef0123456789abcd", f"Authorization: Bearer {MASK}"),
        ("x-api-key: abcdef0123456789abcd", f"x-api-key: {MASK}"),
        ('{"api_key": "abcdef0123456789abcd"}', f'{{"api_key": "{MASK}"}}'),
        ("GET https://host/v1?api_key=zzz&n=1", f"GET https://host/v1?api_key={MASK}&n=1"),
        ("https://host/x?sig=a%2Fb#c", f"https://host/x?sig={MASK}#c"),
        ("the risk-averse bearer of bad news walks 12 km", "the risk-averse bearer of bad news walks 12 km"),
        ("Bearer internationalization is a word", "Bearer internationalization is a word"),
        ("see https://host:8000/v1 at 10:30", "see https://host:8000/v1 at 10:30"),
    ],
)
def test_what_is_masked_and_what_stays(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize("form", ["a+b/c=d&e", "a%2Bb%2Fc%3Dd%26e"])
def test_the_value_of_a_secret_variable_is_masked_also_in_an_address(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "a+b/c=d&e")
    assert redacted(f"<{form}>", "MY_KEY") == f"<{MASK}>"
    assert redacted(f"<{form}>") == f"<{form}>"


def test_a_placeholder_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    assert "OPENAI_API_KEY" not in secret_values()
    assert without_values("EMPTY set", "EMPTY") == "EMPTY set"


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com/v1", "https://host:8443/a/b", "http://127.0.0.1:8000/v1", "http://localhost:1/v1", "http://LOCALHOST./v1",
        "http://[::1]:8000/v1", "http://127.3.2.1/v1", "http://[::ffff:127.0.0.1]/v1",
    ],
)  # fmt: skip
def test_an_address_that_may_be_used(address: str) -> None:
    assert address_problem(address) == ""


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("https://user:pa55@host/v1", "holds a user name or password"),
        ("https://token@host/v1", "holds a user name or password"),
        ("https://user%40x:y%40z@host/v1", "holds a user name or password"),
        ("http://127.0.0.1@evil.example/v1", "holds a user name or password"),
        ("http://localhost\\@evil.example/v1", "is no address"),
        ("https://host/v1?api_key=zzz", "has a query"),
        ("https://host/v1?", "has a query"),
        ("https://host/v1;key=zzz", "has a query"),
        ("https://host/" + TOKENS[0] + "/v1", "holds a token"),
        ("http://host/v1", "unencrypted"),
        ("http://192.168.1.4:8000/v1", "unencrypted"),
        ("http://localhost.evil.example/v1", "unencrypted"),
        ("http://2130706433/v1", "unencrypted"),
        ("http://0.0.0.0:8000/v1", "unencrypted"),
        ("HTTP://HOST/v1", "unencrypted"),
        ("ftp://host/v1", "is no address"),
        ("https:///v1", "is no address"),
        ("https://host:99999/v1", "is no address"),
        ("https://[::1/v1", "is no address"),
    ],
)
def test_an_address_that_must_not_be_used(address: str, problem: str) -> None:
    assert problem in address_problem(address)


def test_plain_http_is_allowed_by_name() -> None:
    assert address_problem("http://10.0.0.5:8000/v1", plain_http=True) == ""
    assert "password" in address_problem("http://a:b@10.0.0.5:8000/v1", plain_http=True)


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "clé-123456", "tab\tkey", "nul\x7fkey"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UserError, match="environment variable MY_KEY: its value is not a key") as caught:
        api_key("MY_KEY")
    assert value not in str(caught.value)


def test_a_key_is_read_without_the_line_break_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "abc123\n")
    assert api_key("MY_KEY") == "abc123"
    assert api_key("NO_SUCH_KEY") == ""


def test_nested_data_is_masked_keys_included() -> None:
    token = TOKENS[0]
    data = {"a": [f"x {token}", 3, None], f"key {token}": {"b": (token,)}, "c": 1.5}
    assert redacted_all(data) == {"a": [f"x {MASK}", 3, None], f"key {MASK}": {"b": [MASK]}, "c": 1.5}


def test_the_strings_that_hold_a_secret_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a value of mine")
    data = {
        "models": {"judge": f"hf:{TOKENS[0]}", "solver": "path:a", "student": "path:a value of mine"},
        "runtime": {
            "mlflow_uri": "postgresql://me:pa55@db/x",
            "api": {"n": 3, "list": ["https://h/?key=1", "git://me@h"]},
        },
    }
    assert list(holding_secrets(data)) == ["models.judge", "models.student", "runtime.mlflow_uri", "runtime.api.list"]


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:6])
def test_a_text_with_a_token_is_not_written_and_the_error_does_not_repeat_it(token: str) -> None:
    with pytest.raises(UserError, match=r"card\.md: holds a token that starts with") as caught:
        refuse_secrets(f"git clone https://me:{token}@host/r", "card.md")
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Authorization: Bearer abcdef0123456789abcd", "the credential of a header"),
        ("postgresql://me:pa55@db/x", "a password in an address"),
        ("its key is a+b/c=d&e.", "the value of OUR_KEY"),
        ("its key is a%2Bb%2Fc%3Dd%26e.", "the value of OUR_KEY"),
        ("a bearer of news at https://host:80/v1, 3 risk-averse-investors-of-a-long-name", ""),
    ],
)
def test_a_secret_is_named_by_its_kind(text: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "a+b/c=d&e")
    assert secret_in(text, "OUR_KEY") == found
