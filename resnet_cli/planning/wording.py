"""Numbers of a plan in words."""


def about_epochs(passes: float) -> str:
    """Return about how many epochs a number of passes is, in words."""
    if passes < 0.95:
        return f"{passes:.1g} of an epoch" if passes >= 0.05 else "hardly any of an epoch"
    return "about 1 epoch" if round(passes) == 1 else f"about {passes:.0f} epochs"
