"""A wording around a prompt: a system prompt, and text before and after the request."""

from dataclasses import dataclass, fields, replace

from immunax.data.dialog import Dialog, Message, Split


@dataclass(frozen=True)
class Template:
    """How prompts are put, in training and after it.

    A guard, or a defense, may hold under the wording it was made with and fall under another one (Qi et al. 2024,
    arXiv:2412.07097, change the template of the attack).

    Attributes:
      system: a system prompt in the place of the dialog's own; None leaves that.
      before, after: text around the last user message.
    """

    system: str | None = None
    before: str = ""
    after: str = ""

    def wrap(self, dialog: Dialog) -> Dialog:
        """The same answer to the prompt in this wording; earlier turns stay.

        Args:
          dialog: any dialog; one without a user message gets the system prompt alone.
        """
        turns = list(dialog.prompt)
        if self.system is not None:
            turns = [Message("system", self.system), *(turn for turn in turns if turn.role != "system")]
        last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=None)
        if last is not None:
            turns[last] = Message("user", self.before + turns[last].content + self.after)
        return replace(dialog, prompt=tuple(turns))

    def wrap_all(self, split: Split) -> Split:
        """Every dialog of a split in this wording."""
        return Split(**{stream.name: tuple(map(self.wrap, getattr(split, stream.name))) for stream in fields(Split)})
