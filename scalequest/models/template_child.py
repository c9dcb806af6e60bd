"""The trial of a chat template, started as a program of its own: reads JSON, prints what went wrong or nothing.

The environment is that of transformers' ``apply_chat_template``: sandboxed, with its functions, filters and block.
"""

import json
import resource
import sys


def main() -> None:
    """Set the limits, render, print a reason."""
    given = json.load(sys.stdin)
    limits = given["limits"]
    from jinja2 import Environment, TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 -- as jinja2 declares it

        def parse(self, parser):
            next(parser.stream)
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True))

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    environment: Environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: form}
    turns = [{"role": role, "content": "Why?"} for role in ("user", "assistant", "user")]
    try:
        template = environment.from_string(given["template"])
        for messages, opened in ((turns[:1], True), (turns[:2], False), (turns, True)):
            length = 0
            # Piece by piece: a loop of short pieces ends here and not in memory.
            try:
                for piece in template.generate(
                    messages=messages, tools=None, documents=None, add_generation_prompt=opened, **given["variables"]
                ):
                    length += len(piece)
                    if length > limits["text"]:
                        print(f"it writes more than {limits['text']:,} characters")
                        return
            except (TemplateError, TypeError, ValueError, AttributeError, KeyError):
                continue  # such as one that takes no second turn; what the caller needs fails there, with its own message
    except MemoryError:
        print(f"it takes more than {limits['memory'] >> 20} MiB")
    except RecursionError:
        print("it calls itself without end")
    except (TemplateError, OverflowError, ValueError):
        return


if __name__ == "__main__":
    main()
