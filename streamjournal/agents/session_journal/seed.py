"""A function that is a plain callable everywhere, and a tool where Strands asks for one.

Strands refuses plain functions as tools, but goes through what can be iterated, and takes the tools that
it finds in there. So a seed function can be called, and going through it gives the Strands tool of its
name. Strands is imported at that moment only: whoever makes an Agent has it already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class SeedFunction(Generic[P, R]):
    """A function, by its own name, signature and docstring; going through it gives its Strands tool."""

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._tool: Any = None
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        update_wrapper(self, function)

    def __call__(self, *arguments: P.args, **keywords: P.kwargs) -> R:
        """Call the function."""
        return self._function(*arguments, **keywords)

    def __iter__(self) -> Iterator[Any]:
        """The Strands tool, alone.

        Raises:
            TypeError: Strands is not installed.
        """
        if self._tool is None:
            try:
                from strands import tool
            except ImportError:
                raise TypeError(
                    f"{self.__name__} is a function; it is a Strands tool, too, once Strands is installed: "
                    "pip install 'streamjournal[strands]'"
                ) from None
            self._tool = tool(self._function)
        return iter((self._tool,))

    def __repr__(self) -> str:
        return f"<seed function {self.__name__}>"

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled by its name, as functions are
