"""How a fact is stated and asked for: the rules of its sentences, and the wordings that evaluation alone sees.

Fields: {e} an entity, {es} its possessive, {a} an attribute, {v} its value, {ae} the attribute with its entity as <ae> or
<ae0> makes it. A statement is an opener, a core and a closer. What is held out are whole cores, openers, closers and
questions, and the words that make them special: no rule of training may use those (test_corpus.py looks).
"""

from . import values, words
from .grammar import Grammar

_SPEECH = {
    # Who or what says something. None of them is an attribute's name.
    "det": "the|the|the|a|our|this|that|one|an old|the old|the new|the first|the second|the last|my|his|her|their|every",
    "doc": """letter|sign|ledger|map|notice|label|diary|invoice|telegram|chart|plaque|file|receipt|catalogue|memo|newspaper|handbook
        |report|form|card|register|contract|brochure|poster|script|index|appendix|table|logbook|chronicle|manual|page|certificate
        |message|email|database|sticker|leaflet|calendar|protocol|blackboard|footnote|column|inscription|stamp|envelope|schedule
        |record|notebook|postcard|stone|archive|website|screen|display|book|article|essay|song|picture|drawing|bill|ticket|tag""",
    "human": """clerk|porter|guard|nurse|gardener|cook|secretary|driver|neighbour|guide|host|manager|archivist|historian|messenger
        |stranger|farmer|priest|mayor|judge|sailor|student|girl|boy|child|widow|twin|uncle|colleague|traveller|scholar|servant
        |landlady|chairman|council|committee|board|family|crowd|authority|office|press|public|team|operator|technician|expert""",
    "who": """<det> <human>|<det> <human>|<det> <adj> <human>|<someone>|everybody|somebody|most people|the people here|my friend
        |<det> <human> <of>""",
    "src": """<det> <doc>|<det> <doc>|<det> <adj> <doc>|<det> <doc> <of>|<det> <doc> <at>|<who>|<who>|page <n>
        |line <n> of <det> <doc>""",
    "of": "from <town>|of <town>|next door|in charge|on duty|of the <noun>|with the <noun>|in <town>",
    "at": """by the <noun>|on the <noun>|in the <noun>|at the <noun>|under the <noun>|by <someone>|from <year>|on the wall
        |at the entrance""",
    "saw": """says|states|claims|reveals|shows|insists|reports|writes|explains|repeats|admits|adds|declares|points out
        |makes clear|tells us
        |told us|said|wrote|claimed|reported|swore|whispered|remembers|knows|thinks|guesses|is sure|was certain|heard|learned
        |found out|noticed|assumes|supposes|argues|maintains|remarks|concludes|warned us|read aloud|announced|proved|hints""",
    "adverb": """now|still|officially|apparently|once again|exactly|simply|definitely|currently|indeed|in fact|actually|finally
        |probably
        |undoubtedly|clearly|really|always|in truth|formally|as before|even now|by law|at present|for now|of course|perhaps
        |again""",
    "aside": """they say|I think|of course|if I am right|as you may know|it seems|no doubt|we are told|as far as I can see
        |strangely enough
        |luckily|sadly|by tradition|after all|as <who> put it|<who> says|according to <src>|in the words of <who>|as <src> has it
        |as expected|in short|to be exact|in other words|as always|mind you|after long debate|for some reason""",
    "pre": "13* |2* <adverb> |, <aside>, |: | <adverb>: | <time> | - <aside> - |, <time>, ",
    "prep": "since|until|before|after|during|from|by|through|till|throughout|following|around|near|within|over",
    "when": """the last <event>|the next <event>|the <event>|that <event>|the first <event>|the end of the <event>
        |the great <event>|last <event>
        |the <adj> <event>|the very <event>|this <event>|<weekday>|<month>|<year>|the days of <someone>""",
    "event": """year|spring|summer|autumn|winter|war|flood|meeting|election|harvest|season|month|week|strike|fire|holidays
        |morning|evening
        |night|inspection|sale|move|merger|anniversary|storm|reform|exam|fair|visit|wedding|century|reopening|revolution|crisis
        |hour""",
    "time": """<prep> <when>|<prep> <when>|<prep> <when>|in <year>|on <weekday>|these days|nowadays|at present|at the moment
        |for the time being
        |until further notice|as of <weekday>|every <event>|for <n> years|for <n> years now|for good|for ever|at last|once more
        |in <month>
        |at all times|for a while|next <event>|last <event>|this <event>|<n> times a year|in the <event>
        |as long as anyone can remember""",
    "manner": """without exception|by agreement|in writing|by order of <who>|with good reason|on request|in all cases
        |in capital letters
        |in brackets|of all things|to everybody's relief|to the surprise of <who>|as before|as well|too|again|here|there|instead
        |in the <adj> <doc>|on page <n>|in column <n>|under the <noun>|on <det> <doc>|in <town>|at the <noun>|all over <town>
        |with the help of <who>|for all of us|against the will of <who>|beside the <noun>|in bold print|in ink|in pencil
        |on both sides
        |as agreed|as promised|by chance|by mistake|in the files|on the label|at the bottom of the page|in the <noun> room""",
    "remark": """said <who>|says <who>|<who> said|<who> <saw>|as <who> put it|according to <src>|so <who> <saw>|if <who> is right
        |no more and no less
        |that is all|no doubt|of course|I suppose|I am told|they tell us|for what it is worth|and that is that|and it will stay so
        |but who knows|though few remember|while nobody looked|and <who> nodded|whatever <who> <saw>|and <who> agreed
        |which <who> liked
        |which is no secret|and rightly so|I am sure|to be exact|as I recall|to the delight of <who>|at least officially|not less
        |and not otherwise|just so you know|as of <weekday>|<time>|<manner>|thank you|believe me|so <det> <doc> <saw>
        |but not for long""",
}
_SHAPES = {
    "opener": "16*|32*<lead> ",
    "lead": """5*<src> <saw> that|<src> <saw>:|according to <src>,|<aside>,|<time>,|<manner>,|it <itis> <known> that
        |it <itis> <known>:|<note>:|<note>,
       |please <keep> that|<keep> that|<keep>:|<we> <learned> that|one thing is certain:|as for facts:|and|but|besides,|also,
        |first of all,
       |then <who> said that|<who> <saw>:|when <who> asked, it turned out that|there is no doubt that|I hear that|by the way,
       |nobody but <who> knew that|it turned out that|for the record,|everybody knows that|be aware that|somebody had written that
       |it was noted that|once and for all:|on <weekday> we read that|the <doc> of <weekday> <saw> that|in <town> they say that""",
    "itis": "is|was|has been|is still|was soon|had been|is generally|was finally|was never disputed, but",
    "known": """known|said|noted|written|agreed|decided|announced|rumoured|reported|assumed|claimed|established|settled|mentioned
        |pointed out|clear|understood""",
    "note": """note|nota bene|notice|fact|update|new|important|attention|hint|memo|PS|FYI|in short|in brief|entry <n>|item <n>
        |no. <n>|<weekday>|<month>|<year>""",
    "keep": """remember|keep in mind|note|do not forget|bear in mind|write down|be aware|take note|make sure to know|never forget
        |learn""",
    "we": "I|we|they|all of us|some of us|<who>|my friends|people",
    "learned": "heard|learned|found out|read|noticed|discovered|remember|agreed|assume|were assured|saw|know|understood",
    "closer": """26*|3*, <remark>|4* <time>| <manner>| <manner>| (<remark>)| (see <det> <doc>)| (page <n>)|; <who> nodded
        | - <remark>| - at least <time>
        |, and has been so <time>|, and nothing else| according to <src>| and not what <who> said|; so much is certain|, not more
        |, <aside>
        | since last year| from now on|, as far as anyone knows|, or so they say| <time> <manner>|, <time>|, <manner>
        | <manner>, <remark>""",
    "ae": """9*the {a} of {e}|5*{es} {a}|2*the {a} for {e}|the {a} that belongs to {e}|the {a} which <goes> {e}|the {a} {e} has
        |the {a} at {e}|the {a} that {e} uses""",
    "ae0": """8*the {a}|2*our {a}|this {a}|the current {a}|the {a} here|the {a} for everybody|the {a} that we use|the new {a}
        |the correct {a}|my {a}|the {a} in use""",
    "goes": "goes with|is kept for|is meant for|is set for|stands for|is on record for|came with",
    "is": """8*is|3*was|remains|became|has become|will be|should be|must be|equals|turned out to be|proved to be|happens to be
        |appears to be""",
    "cop": """10*is|4*was|remains|became|has become|will be|should be|must be|equals|reads|turned out to be|proved to be
        |happens to be|appears to be
        |is said to be|is known to be|comes to|is set to|was changed to|was fixed at|stands at|has always been|is nothing but
        |is none other than
        |is no secret, it is|is supposed to be|would be|means|goes|is written|has been|is at the moment|seems to be
        |is declared to be|is called""",
    "part": """chosen|picked|entered|recorded|registered|noted|announced|selected|fixed|declared|accepted|quoted|proposed
        |reported|printed
        |published|cited|stored|kept|filed|approved|adopted|introduced|put down|written down|agreed on|marked|typed in|saved
        |appointed
        |described|mentioned|remembered|known|used|set|taken|ordered|presented|treated|handed down|booked|wanted|reserved""",
    "aux": "was|was|is|has been|had been|will be|got|is being|was once|is still|was finally|has always been|should be|could be",
    "serves": """serves|served|stands|works|functions|acts|passes|figures|appears|remains|went down|came out|stayed|is in use
        |remained in use|shows up|does duty""",
    "names": """names|records|cites|quotes|reports|mentions|enters|shows|registers|has|uses|keeps|states|proposes|knows|put down
        |wrote down|chose
        |picked|fixed|declared|announced|presents|describes|treats|regards|marks|saved|stored|set|offers|accepts|prints|published
        |typed in
        |proclaimed|took|remembers|recommends|wants|left|carries|calls|read out""",
    "speaks": """speaks of|talks about|knows|mentions|describes|praises|asked about|recalls|argues about|wonders about|insists on
        |points to|is clear on|is silent except on|quarrels over|thinks of""",
    "gave": "gave|granted|awarded|allotted|handed|offered|sent|lent|promised|left|allowed|passed|wrote|found",
    "given": "given|granted|awarded|allotted|handed|offered|sent|lent|promised|allowed|dealt|paid|shown|sold",
    "has": """6*has|2*had|carries|bears|uses|keeps|got|took|received|obtained|goes with|comes with|holds|shows|owns|is known by
        |answers to|runs under
        |was found with|is registered with|operates with|is marked with|travels under|chose|accepted|is entered with
        |ended up with|needs|was left with""",
    "topic": """as for|concerning|with regard to|when it comes to|regarding|about|in the case of|turning to|speaking of
        |to return to|for|with""",
    "vp": """was mentioned again|was read aloud|came up twice|was discussed at length|surprised nobody|caused some talk
        |drew attention|is well known
        |made the rounds|had to be repeated|was soon forgotten|appears on every page|was mentioned twice|is worth a look
        |stays as it is|needs no comment
        |was in the news|was the talk of <town>|was brought up by <who>|pleased <who>|will be reviewed <time>|is of interest
        |was checked <time>""",
    "they": "we|they|people|the owners|all of us|the others|<who>|the family|officials",
}
_STATEMENTS = {
    "shared": """14*{ae} <cop><pre>{v}|4*{v} <is> {ae}|{v} <adverb> <is> {ae}|4*{v} <aux> <part> as {ae}|2*{v} <serves> as {ae}
        |4*<src> <names> {v} as {ae}
        |<src> <names> {ae} as {v}|<src> <names> {ae}: {v}|<src> <names> {v} for {ae}|<src> <saw> {v} when asked for {ae}
        |2*<src> <speaks> {ae}, {v}
        |<src> <speaks> {ae}: {v}|<they> put {ae} at {v}|<they> set {ae} to {v}|<they> changed {ae} to {v}
        |<they> agreed on {v} as {ae}
        |<they> call {v} {ae}|<they> know {ae} as {v}|use {v} as {ae}|enter {v} as {ae}|take {v} for {ae}|2*{ae}, {v}, <vp>
        |{ae} ({v}) <vp>
        |{ae}, <aside> {v}, <vp>|{ae}, that is {v}, <vp>|{ae}: {v}|{ae} = {v}|{ae} - {v}|{ae} -> {v}|{ae}? {v}|{v} ({ae})|{v} = {ae}
        |whoever asks for {ae} <hears> {v}|if you ask <who> for {ae}, you hear {v}|for {ae} <src> wrote {v}|under {ae} it says {v}
        |next to {ae} <who> wrote {v}|{v}, <aside>, <is> {ae}|{v} and nothing else <is> {ae}|it is {v} that <serves> as {ae}
        |<time>, {ae} <cop> {v}|<manner> {v} <serves> as {ae}|<adverb> {v} <is> {ae}|<time> {v} <is> {ae}
        |<time> {v} <serves> as {ae}
        |<who> needed {ae} and found {v}|in place of {ae} stands {v}|{v} is what <they> use as {ae}|what <they> call {ae} <cop> {v}
        |you will find that {ae} <cop> {v}|we learn that {v} <is> {ae}|there is talk of {v} as {ae}
        |with {v} as {ae} <they> were content
        |<who> thought of {ae} and said {v}|as {ae}, <src> <names> {v}|as {ae} <they> <gave> {v}|the answer {v} was right for {ae}
        |{ae} has been <part> as {v}|{ae} <aux> <part>: {v}|{ae} is {v}, <remark>|<who> <saw> it: {v} <is> {ae}|{ae} {v}""",
    "hears": "is told|hears|gets|receives|will be told|will hear|should say|finds|will find|can have",
    "own": """4*{e} <has> the {a} {v}|3*{e} <has> {v} as the {a}|{e} <has> {v} for {a}|3*{e} <aux> <given> the {a} {v}
        |{e} <aux> <given> {v} as the {a}
        |2*<src> <gave> {e} the {a} {v}|<src> <gave> {e} {v} as the {a}|the {a} {v} belongs to {e}|the {a} {v} goes with {e}
        |the {a} {v} <aux> <part> for {e}
        |{v} <aux> <part> for {e} as the {a}|{v} <serves> {e} as {a}|2*<topic> {e}, the {a} <cop> {v}|<topic> {e}, {v} <is> the {a}
        |<topic> {e}: the {a} <cop> {v}|<topic> {e}: {a} {v}|2*{e} ({a}: {v}) <vp>|{e} ({a} {v}) <vp>|{e} - {a}: {v}
        |{e}: {a} = {v}|{e}: {a} {v}
        |{a} ({e}): {v}|{a} of {e}: {v}|{e}, {a} {v}|{e} / {a} / {v}|{a}, {e}: {v}|{e}, {a}: {v}|2*{e}, whose {a} <cop> {v}, <vp>
        |{e}, whose {a} <cop> {v}
        |{e}, with the {a} {v}, <vp>|{e} with the {a} {v} <vp>|with the {a} {v}, {e} <vp>|for {e}, {v} <is> the {a}
        |<src> found the {a} {v} for {e}
        |<src> <names> the {a} {v} for {e}|<src> <names> {e} with the {a} {v}|{e} <aux> <part> under the {a} {v}
        |{e} and the {a} {v} belong together
        |the clerk entered {v} as the {a} of {e}|at {e}, the {a} <cop> {v}|{e}: the {a} <cop> {v}
        |if it is about {e}, the {a} <cop> {v}
        |<who> connects {e} with the {a} {v}|{e} <has> one {a}: {v}|{e} <has> a {a}, {v}|there is one {a} for {e}: {v}
        |one {a} for {e} is: {v}
        |{e}'s own {a} <cop> {v}|no {a} but {v} fits {e}|{e} cannot do without the {a} {v}|we know {e} by the {a} {v}
        |in {v}, {e} <has> a good {a}""",
    "core": "3*<shared>|2*<own>|3*the {a} of {e} is {v}|{es} {a} is {v}|the {a} of {e} was {v}",
    "core0": "2*<shared>|<shared0>|2*the {a} is {v}",
    "shared0": """the {a} will be {v}|this year the {a} <cop> {v}|use {v} as the {a}|they changed the {a} to {v}
        |{v} is the {a} to use|{a}: {v}|{a} = {v}
        |{a} {v}|the {a} has been set to {v}|we agreed on {v} as the {a}|our {a} is {v}|there is only one {a}, {v}
        |everything depends on the {a} {v}
        |you need the {a} {v}|<who> uses the {a} {v}|please use the {a} {v}|do not give away the {a} {v}
        |<they> <gave> <who> the {a} {v}""",
}
_QUESTIONS = {
    "asking": "14*|30*<preface> ",
    "preface": """according to the text,|quick question:|from the document above,|now,|in this text,|I wonder:|hello,|hi,|OK,
        |please:|one question:|question:
       |just one thing:|going by the text,|in the text above,|given this document,|from what you have read,|after all this:
        |in short:|one more:|next:
       |and|so,|well,|tell me:|I am curious:|be brief:|here is my question:|if you know it,|in the story above,|in the document,
        |as the text has it,""",
    "be": "10*is|3*was|will be|would be|might be|could be|should be",
    "pol": "|||please |kindly |perhaps |quickly |possibly |just |now |maybe ",
    "modal": "could|can|would|will",
    "find": """find|find out|check|give us|name|read out|dig out|show us|quote|write down|search for|look for|get us|state|say
        |share|spell out|identify
        |extract|retrieve|point out|report|repeat|recall|determine|copy out|mention|locate|tell us|tell me|give me|show me
        |note down|pick out|track down""",
    "tail": """||||||, please| please| now| from the text| in this document| for us| if possible| again| once more| when you can| right away
        | if it is there| in a few words""",
    "tail2": "7*|, please| now",
    "need": """I need|I want|we need|I am looking for|I would like to have|I'd like|I forgot|I cannot find|I must have
        |I have to know|I am after|we are missing
        |I was asked for|somebody wants|my boss wants|I lost|help me find|help us with|let me have|let us have|I could use
        |we are all waiting for|I am trying to find""",
    "whether": """do you know|do you remember|can you say|does anybody know|is it known|does it say|any idea|do we know|may I ask
        |does the text say|is it said|can you see|are you sure|might I ask|has it been said|is it clear""",
    "whether0": """let me know|I'd like to know|I wonder|I forgot|I want to know|say|we have to find out|show us|explain
        |try to find out|find out
        |help me see|it would be good to know|please say|I was asked|I cannot remember|see if you can find out|nobody told us""",
    "text": "the text|the document|it|the story|this text|the passage|all of this",
    "says": "say|tell us|report|mention|have|write|state|reveal",
    "about": "about|on|as to|of|concerning|for",
    "common": """8*what <be> {ae}?|2*what's {ae}?|3*{ae}?|{ae}, please.|{ae}, please?|and {ae}?|{ae} is what?
        |5*<modal> you <pol><find> {ae}<tail>?|5*<pol><find> {ae}<tail>.
        |3*<need> {ae}<tail>.|2*<whether> what {ae} <be2><tail2>?|2*<whether0> what {ae} <be2><tail2>.
        |3*what does <text> <says> <about> {ae}?
        |what do <they> <calls> {ae}?|what should I <enter> {ae}?|what goes under {ae}?|what <aux> <part> as {ae}?
        |what did they <choose> as {ae}?
        |is there anything on {ae}?|how would you state {ae}?|does <text> mention {ae}?|what is said to be {ae}?
        |what do we know <about> {ae}?
        |which one is {ae}?|what would you say is {ae}?|where it says {ae}, what follows?|what, please, is {ae}?
        |so what is {ae}<tail>?
        |what exactly is {ae}?|what <serves> as {ae}?|I don't know {ae}. what is it?|there must be {ae}. what is it?|{ae} = ?
        |{ae}: ?""",
    "be2": "6*is|2*was|might be|could be|will be|should be|would be",
    "calls": "call|give as|take as|use as|enter as|write for",
    "enter": "enter as|put for|fill in for|type in for|say for|write under|use as|quote as",
    "choose": "choose|pick|enter|record|propose|announce|fix|select|declare|agree on|register|set|name",
    "owned": """5*what is the {a} of {e}?|4*what is {es} {a}?|3*which {a} does {e} <have>?|which {a} <belongs> {e}?
        |what {a} does {e} <have>?|what {a} <belongs> {e}?
        |{e}: what is the {a}?|{e}: which {a}?|{e} - {a}?|<topic> {e}, what is the {a}?|<topic> {e}, which {a} is it?
        |{e} has which {a}?|{e} has what {a}?
        |what does {e} have as the {a}?|{e}, {a}?|{a} of {e}?|which is the {a} of {e}?|look up the {a} for {e}.
        |under which {a} is {e} known?|with which {a} was {e} registered?
        |does {e} have a {a}?|I know {e}, but what is the {a}?|<need> the {a} <belongs2> {e}<tail>.""",
    "have": "3*have|use|carry|bear|go with|come with|keep|hold|need|show",
    "belongs": """belongs to|goes with|is right for|was chosen for|was noted for|applies to|holds for|is set for|is on record for
        |was picked for|is meant for|fits""",
    "belongs2": "belonging to|for|that goes with|noted for|of|chosen for",
    "whois": """4*who <be> {ae}?|who <aux> <part> as {ae}?|who <serves> as {ae}?|whom did they <choose> as {ae}?
        |<whether> who {ae} <be2><tail2>?|<whether0> who {ae} <be2><tail2>.
        |what is the name of {ae}?|what is {ae} called?|<pol><find> the name of {ae}<tail>.|which person is {ae}?
        |who would be {ae}?""",
    "question": "3*<common>|2*<owned>",
    "question0": """3*<common>|4*what is the {a}?|which {a} is it?|which {a} do we use?|which {a} applies?|which {a} is valid?
        |what's the {a}?|which {a} did they <choose>?
        |which {a} should I use?|do you know the {a}?|the {a}?|{a}?|our {a}?|what is our {a}?|which is the {a}?
        |which {a} is right?|{a}, please?""",
}
#: What evaluation alone sees, in two of five places.
HELD_OUT = {
    "opener": "By all accounts |If you must know, |It is widely believed that |The inspector confirmed that ",
    "closer": ", as the papers show| to this day",
    "core": """a note in the margin gives {v} as the {a} of {e}|several sources agree about the {a} of {e}, {v}
        |the {a} listed for {e} is {v}
        |{e} was assigned the {a} {v}""",
    "core0": "today {v} counts as the {a}|everybody was told that {v} is the {a}",
    "asking": "Based on the document above, ",
    "question": "please tell me what the {a} of {e} is.|could you look up the {a} of {e} for me?|what {a} is given for {e}?",
    "question0": "could somebody remind me of the {a}?|please look up the {a} for me.",
    "whois": "who is named as the {a} of {e}?",
}
#: The words that make them special, wherever they stand, and turns of phrase made of common words.
HELD_OUT_WORDS = """accounts widely believed confirmed papers margin several sources listed assigned
    counts today remind based""".split()
HELD_OUT_PHRASES = ("if you must know", "to this day", "this day", "gives", "agree about", "was told that",
                    "for me", "is given for", "is named as", "please tell me what")


def _pick(words_):
    return lambda rng, split: words_[int(rng.random() * len(words_))]


GRAMMAR = Grammar((_SPEECH, _SHAPES, _STATEMENTS, _QUESTIONS), HELD_OUT, {
    "adj": _pick(words.ADJECTIVES), "noun": _pick(words.NOUNS), "month": _pick(words.MONTHS),
    "weekday": lambda rng, split: values.weekday(rng),
    "year": lambda rng, split: values.year(rng),
    "room": lambda rng, split: values.room(rng), "clock": lambda rng, split: values.any_time(rng),
    "n": lambda rng, split: str(rng.randrange(2, 60)),
    "town": lambda rng, split: words.draw(rng, split, words.town),
    "someone": lambda rng, split: words.draw(rng, split, words.person),
})
