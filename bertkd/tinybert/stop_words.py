"""English words that augmentation leaves alone: they carry grammar, and another one in their place changes it."""

__all__ = ["STOP_WORDS"]

_DETERMINERS = """
a an the this that these those all any both each few more most other some such no own same
"""
_PRONOUNS = """
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves who whom whose which what
"""
_AUXILIARIES = """
am is are was were be been being have has had having do does did doing done will would shall should can could
may might must ought
"""
_PREPOSITIONS = """
about above across after against along among around at before behind below beneath beside between beyond by down
during for from in inside into near of off on onto out outside over per since through throughout to toward
towards under until up upon via with within without
"""
_CONJUNCTIONS = """
and or nor but yet so if than because as while whereas although though unless whether
"""
_ADVERBS = """
again further then once here there when where why how now just only too very not
"""
# The parts of a contraction that is split at its apostrophe.
_CONTRACTIONS = """
s t d m o y re ve ll ma don ain aren couldn didn doesn hadn hasn haven isn mightn mustn needn shan shouldn wasn
weren won wouldn
"""

STOP_WORDS = frozenset(
    " ".join((_DETERMINERS, _PRONOUNS, _AUXILIARIES, _PREPOSITIONS, _CONJUNCTIONS, _ADVERBS, _CONTRACTIONS)).split()
)
