"""The table of what verbs say; relations.py reads it and tells what its lines are."""

TABLE = """
live | somebody | city | {s} lives in {v} | home town
+ {s} lives in {v} | {s} lives in {v} | {s} lives in {v} | {s} has a flat in {v} | {v} is where {s} lives | {s} settled in {v} |
  {s} moved to {v} <time> | the home of {s} is in {v} | {s} has been living in {v} <time> | {s}, who lives in {v}, <vp>
? where does {s} live? | where does {s} live? | in which town does {s} live? | which city does {s} live in? |
  do you know where {s} lives? | tell us where {s} lives. | where is the home of {s}? | {s} lives where? | where is {s} living?
!+ {s} resides in {v} | {v} is {ss} place of residence
!? what is the place where {s} resides?

born in | somebody | city | {s} was born in {v} | birthplace
+ {s} was born in {v} | {s} was born in {v} | {s} came into the world in {v} | {v} is where {s} was born | born in {v}, {s} <vp> |
  {ss} mother gave birth in {v}
? where was {s} born? | where was {s} born? | in which town was {s} born? | what is the birthplace of {s}? |
  where does {s} come from? | which town was {s} born in?
!+ {s} is a native of {v}
!? which place is {s} a native of?

born on | somebody | any_date | {s} was born on {v} | birthday
+ {s} was born on {v} | {s} was born on {v} | {s} came into the world on {v} | the birth of {s} was on {v} | {s} (born {v}) <vp> |
  {s} celebrates the birthday on {v}
? when was {s} born? | when was {s} born? | on which day was {s} born? | what day was {s} born on? |
  when does {s} have a birthday?

work | somebody | profession | {s} works as a {v} | profession
+ {s} works as a {v} | {s} works as a {v} | {s} is a {v} by trade | {s} is a {v} | {s} earns a living as a {v} |
  {s} found a job as a {v} <time> | {s}, a {v}, <vp> | {s} was trained as a {v} | people know {s} as a {v}
? what does {s} do for a living? | what does {s} do? | what does {s} work as? | what is {ss} job? | which trade does {s} have? |
  as what does {s} work? | what kind of work does {s} do?
!+ {s} makes ends meet as a {v}
!? how does {s} make ends meet?

work at | somebody | firm | {s} works for {v} | employer
+ {s} works for {v} | {s} works for {v} | {s} is employed by {v} | {v} employs {s} | {s} has a job with {v} |
  {s} joined {v} <time> | {v} hired {s} <time>
? who does {s} work for? | where does {s} work? | which company does {s} work for? | who employs {s}? |
  who is the employer of {s}? | which firm did {s} join?

cost | ware | price | {s} costs {v} | price
+ {s} costs {v} | {s} costs {v} | {s} cost {v} | you pay {v} for {s} | they ask {v} for {s} | {s} sells for {v} |
  {s} sells at {v} | {s} can be had for {v} | {v} is what {s} costs | <who> paid {v} for {s} | {s} goes for {v} |
  for {v} you get {s}
? how much does {s} cost? | how much does {s} cost? | what does {s} cost? | how much is {s}? | what do you pay for {s}? |
  how much do they ask for {s}? | how expensive is {s}? | how much money is {s}? | for how much is {s} sold?
!+ {s} is yours for {v} | {s} was priced at {v}
!? what would one have to spend on {s}?

cost dish | dish | price | {s} costs {v} | price
+ {s} costs {v} | {s} costs {v} | {s} is {v} | you pay {v} for {s} | they charge {v} for {s} | {s} is on the menu for {v} |
  {v} is charged for {s} | {s} costs only {v}
? how much does {s} cost? | what does {s} cost? | how much is {s}? | what do they charge for {s}? | how much do I pay for {s}? |
  tell us how much {s} costs.

start | event | any_time | {s} starts at {v} | starting time
+ {s} starts at {v} | {s} starts at {v} | {s} begins at {v} | {s} starts at {v} in <room> | {s} starts at {v} on <weekday> |
  {s} is set to start at {v} | {s} will begin at {v} in <room> | {s} opens at {v} | at {v}, {s} begins | they begin {s} at {v} |
  the start of {s} is at {v} | on <weekday> at {v} {s} starts | come at {v} for {s}
? when does {s} start? | when does {s} start? | when does {s} begin? | at what time does {s} start? | what time does {s} begin? |
  when should I be at {s}? | tell us when {s} starts.
!+ {s} kicks off at {v} | {s} commences at {v}
!? at which hour does {s} kick off?

held | event | room | {s} takes place in {v} | location
+ {s} takes place in {v} | {s} is held in {v} | {s} will be in {v} | {s} starts at <clock> in {v} | {s} was moved to {v} |
  we meet in {v} for {s} | {v} was booked for {s} | at <clock> {s} takes place in {v} | {s} on <weekday> is in {v}
? where does {s} take place? | in which room is {s}? | where is {s} held? | where is {s}? | which room is {s} in? |
  where do we meet for {s}? | where will {s} be?
!+ {v} will accommodate {s}
!? what is the venue of {s}?

on day | event | any_date | {s} is on {v} | date
+ {s} is on {v} | {s} takes place on {v} | {s} will be held on {v} | {s} falls on {v} | {s} was put off until {v} |
  they moved {s} to {v} | {v} is the day of {s} | on {v} we have {s} | {s} is planned for {v} in <town>
? on which day is {s}? | which day is {s} on? | what is the date of {s}? | on what date does {s} take place? |
  which date was chosen for {s}?

last | event | duration | {s} lasts {v} | length
+ {s} lasts {v} | {s} lasts {v} | {s} takes {v} | {s} goes on for {v} | {s} was over after {v} | it takes {v} to sit through {s} |
  plan {v} for {s}
? how long does {s} last? | how long does {s} take? | how long is {s}? | for how long does {s} go on? |
  how much time does {s} take? | what is the length of {s}?

leave | vehicle | any_time | {s} leaves at {v} | departure time
+ {s} leaves at {v} | {s} leaves at {v} | {s} departs at {v} | {s} leaves <town> at {v} | {s} leaves from platform <n> at {v} |
  at {v}, {s} leaves | {s} goes at {v} | {s} sets off at {v} from <town> | the departure of {s} is at {v} |
  {s} was to leave at {v}
? when does {s} leave? | when does {s} leave? | at what time does {s} leave? | when does {s} depart? | what time does {s} go? |
  what is the departure time of {s}? | when do I have to catch {s}?
!+ {s} pulls out at {v}
!? at what hour does {s} pull out?

platform | vehicle | platform | {s} leaves from {v} | platform
+ {s} leaves from {v} | {s} leaves from {v} | {s} departs from {v} | {s} leaves at <clock> from {v} | {s} goes from {v} |
  you board {s} at {v} | {s} waits at {v} | take {s} from {v} | {s} was moved to {v} | from {v} leaves {s}
? where does {s} leave from? | from where does {s} leave? | which platform does {s} depart from? |
  from which platform or gate does {s} leave? | where do I board {s}? | where does {s} wait? | where do I find {s}?
!+ passengers for {s} should gather at {v}
!? where should passengers for {s} gather?

arrive | vehicle | any_time | {s} arrives at {v} | arrival
+ {s} arrives at {v} | {s} arrives at {v} | {s} gets in at {v} | {s} will be there at {v} | the arrival of {s} is at {v} |
  {s} arrives in <town> at {v} | we expect {s} at {v}
? when does {s} arrive? | at what time does {s} arrive? | when does {s} get in? | when will {s} be there? | when is {s} expected?

open | venue | any_time | {s} opens at {v} | opening time
+ {s} opens at {v} | {s} opens at {v} | {s} opens its doors at {v} | {s} is open from {v} | from {v} you can visit {s} |
  {s} opens at {v} on <weekday> | at {v} they open {s} | {s} lets people in at {v}
? when does {s} open? | when does {s} open? | at what time does {s} open? | what time does {s} open? | from when is {s} open? |
  how early does {s} open?
!+ {s} unlocks for visitors at {v}
!? at which hour does one unlock {s}?

close | venue | any_time | {s} closes at {v} | closing time
+ {s} closes at {v} | {s} closes at {v} | {s} shuts at {v} | {s} is open until {v} | {s} closes its doors at {v} |
  {s} closes at {v} on <weekday> | they close {s} at {v} | at {v} everybody has to leave {s}
? when does {s} close? | when does {s} close? | at what time does {s} close? | until when is {s} open? |
  what time does {s} shut? | how late is {s} open?

closed on | venue | weekday | {s} is closed on {v} | day off
+ {s} is closed on {v} | {s} does not open on {v} | on {v} you will find {s} closed | {s} stays shut on {v} | {s} rests on {v}
? on which day is {s} closed? | which day does {s} not open? | on what day does {s} stay shut?

sell | venue | food | {s} sells {v} | goods
+ {s} sells {v} | {s} sells {v} | you can buy {v} at {s} | {s} is known for its {v} | {s} trades in {v} |
  {s} offers nothing but {v} | at {s} they sell {v} | <who> buys {v} at {s}
? what does {s} sell? | what does {s} sell? | what can I buy at {s}? | what is sold at {s}? | what is {s} known for? |
  which goods does {s} offer?
!+ the shelves of {s} are full of {v}
!? what fills the shelves of {s}?

called | creature | name | {s} is called {v} | name
+ {s} is called {v} | {s} is called {v} | {s} is named {v} | {s} answers to the name {v} | they call {s} {v} |
  {v} is the name of {s} | {s} listens to the name of {v} | {s} goes by {v} | {v}, {s}, <vp> | {s} was given the name {v}
? what is {s} called? | what is the name of {s}? | what is the name of {s}? | how is {s} called? | what do they call {s}? |
  which name does {s} have? | what's {ss} name? | what name does {s} answer to?
!+ {s} was baptized {v}
!? what was {s} baptized?

eat | creature | food | {s} eats {v} | food
+ {s} eats {v} | {s} lives on {v} | {s} is fed with {v} | {s} gets {v} every morning | {s} eats nothing but {v} |
  they feed {v} to {s}
? what does {s} eat? | what is {s} fed with? | what does {s} live on? | what do they feed to {s}? |
  what does {s} get every morning?

hang | kept | spot | {s} hangs {v} | place
+ {s} hangs {v} | {s} hangs {v} | {s} is hanging {v} | they hung {s} {v} | {v} hangs {s} | <who> hung {s} {v} |
  you see {s} hanging {v}
? where does {s} hang? | where does {s} hang? | where is {s} hanging? | where did they hang {s}? | where can I find {s}? |
  where is {s}?

lie | kept | spot | {s} lies {v} | place
+ {s} lies {v} | {s} lies {v} | {s} is lying {v} | {s} is {v} | <who> left {s} {v} | {s} was found {v} | {v} lies {s} |
  I put {s} {v} | you will find {s} {v}
? where does {s} lie? | where is {s}? | where is {s}? | where did they leave {s}? | where was {s} found? | where can I find {s}? |
  where did I put {s}?
!+ {s} came to rest {v}
!? in what spot did {s} come to rest?

keep | kept | spot | {s} is kept {v} | place
+ {s} is kept {v} | {s} is kept {v} | they keep {s} {v} | {s} is stored {v} | {s} has its place {v} | <who> keeps {s} {v} |
  {s} is hidden {v} | {s} belongs {v} | look for {s} {v} | {s} stands {v}
? where is {s} kept? | where is {s} kept? | where do they keep {s}? | where is {s} stored? | where should I look for {s}? |
  where is {s} hidden? | where does {s} stand?
!+ {s} is tucked away {v}
!? where did they tuck {s} away?

belong | ware | somebody | {s} belongs to {v} | owner
+ {s} belongs to {v} | {s} belongs to {v} | {v} owns {s} | {s} is owned by {v} | {s} is the property of {v} |
  {v} has owned {s} <time> | {s} was left to {v} | {s} is in the hands of {v}
? who owns {s}? | who does {s} belong to? | whom does {s} belong to? | who has {s}? | who is the owner of {s}? |
  whose property is {s}? | to whom does {s} belong?
!+ the proprietor of {s} goes by the name of {v}
!? who is the proprietor of {s}?

weigh | ware | mass | {s} weighs {v} | weight
+ {s} weighs {v} | {s} weighs {v} | {s} weighed {v} | {s} comes to {v} on the scales | with {v}, {s} is rather heavy |
  {s} is {v} heavy | the weight of {s} came to {v}
? how much does {s} weigh? | how much does {s} weigh? | what does {s} weigh? | how heavy is {s}? | what is the weight of {s}? |
  what do the scales say about {s}?
!+ {s} tips the scales at {v}

measure | building | extent | {s} is {v} high | height
+ {s} is {v} high | {s} is {v} high | {s} rises to {v} | {s} reaches a height of {v} | {s} stands {v} tall |
  the top of {s} is {v} above the ground | {s} measures {v} from bottom to top
? how high is {s}? | how high is {s}? | how tall is {s}? | what height does {s} reach? | what is the height of {s}?

built in | building | year | {s} was built in {v} | building year
+ {s} was built in {v} | {s} was built in {v} | {s} dates from {v} | they built {s} in {v} | {s} has stood there since {v} |
  {s} was finished in {v} | in {v}, {s} was built | {s}, built in {v}, <vp>
? when was {s} built? | when was {s} built? | in which year was {s} built? | what year does {s} date from? |
  since when has {s} stood there?
!+ the foundation of {s} was laid in {v}
!? when was the foundation of {s} laid?

built by | building | somebody | {s} was built by {v} | builder
+ {s} was built by {v} | {s} was built by {v} | {v} built {s} | {s} was designed by {v} | {v} designed {s} <time> |
  {s} is a work of {v} | it was {v} who built {s}
? who built {s}? | who built {s}? | by whom was {s} built? | who designed {s}? | whose work is {s}? | who was {s} built by?

made of | building | material | {s} is made of {v} | material
+ {s} is made of {v} | {s} is made of {v} | {s} consists of {v} | they made {s} of {v} | {v} was used for {s} | {s} is all {v}
? what is {s} made of? | what is {s} made of? | which material is {s} made of? | what does {s} consist of? |
  what was used for {s}?

contain | ware | phrase | {s} contains {v} | content
+ {s} contains {v} | {s} contains {v} | {s} holds {v} | inside {s} there is {v} | {v} is in {s} | in {s} they found {v} |
  {s} is filled with {v} | <who> put {v} into {s}
? what does {s} contain? | what does {s} contain? | what is in {s}? | what is inside {s}? | what did they find in {s}? |
  what is {s} filled with? | what does {s} hold?

made with | dish | food | {s} is made with {v} | main ingredient
+ {s} is made with {v} | {s} is made with {v} | {s} contains {v} | {s} tastes of {v} | <who> puts {v} into {s} |
  what makes {s} so good is {v} | there is {v} in {s} | {s} needs {v} | {v} goes into {s} | {s} is full of {v}
? what is {s} made with? | what does {s} contain? | what is in {s}? | what goes into {s}? | what does {s} taste of? |
  what makes {s} so good? | what does {s} need? | which ingredient does {s} have?
!+ {s} owes its flavour to {v}
!? what gives {s} its flavour?

play | somebody | instrument | {s} plays the {v} | instrument
+ {s} plays the {v} | {s} plays the {v} | {s} learned to play the {v} <time> | {s} is good at the {v} |
  {s} practises the {v} every evening | you can hear {s} on the {v} | the {v} is what {s} plays | {s} bought a {v}
? what does {s} play? | which instrument does {s} play? | which instrument does {s} play? | what instrument did {s} learn? |
  on what can you hear {s}? | what does {s} practise?
!+ {s} has mastered the {v}
!? which instrument has {s} mastered?

drive | somebody | driven | {s} drives {v} | vehicle
+ {s} drives {v} | {s} drives {v} | {s} goes to work in {v} | {s} bought {v} <time> | {s} came in {v} | {v} is what {s} drives |
  you can see {s} in {v}
? what does {s} drive? | what does {s} drive? | which car does {s} drive? | what kind of vehicle does {s} have? |
  in what does {s} go to work? | what did {s} come in?
!+ {s} sits behind the wheel of {v}

like | somebody | food | {s} likes {v} | favourite food
+ {s} likes {v} | {s} likes {v} | {s} loves {v} | {s} is fond of {v} | {s} likes nothing better than {v} | {s} cannot resist {v} |
  {v} makes {s} happy | {s} enjoys {v} | {s} would eat {v} every day
? what does {s} like? | what does {s} like most? | what does {s} love? | what is {s} fond of? | what makes {s} happy? |
  what does {s} enjoy? | what would {s} eat every day?
!+ {s} has a weakness for {v}
!? what does {s} have a weakness for?

hate | somebody | animal | {s} is afraid of the {v} | fear
+ {s} is afraid of the {v} | {s} is afraid of the {v} | {s} fears the {v} | the {v} frightens {s} | {s} runs away from every {v} |
  nothing scares {s} like a {v}
? what is {s} afraid of? | what does {s} fear? | what frightens {s}? | which animal is {s} afraid of? | what scares {s}?

married | somebody | somebody | {s} is married to {v} | spouse
+ {s} is married to {v} | {s} married {v} | {s} married {v} <time> | {s} and {v} are husband and wife |
  {s} is the wife or husband of {v} | {s} took the hand of {v} in <town>
? who is {s} married to? | who did {s} marry? | to whom is {s} married? | who is the spouse of {s}? | whose hand did {s} take? |
  whom did {s} marry?

speak | somebody | language | {s} speaks {v} | language
+ {s} speaks {v} | {s} speaks {v} | {s} is fluent in {v} | {s} grew up with {v} | {s} learned {v} <time> |
  {s} writes letters in {v} | {v} is what {s} speaks at home
? which language does {s} speak? | what does {s} speak? | what language does {s} speak? | in which language is {s} fluent? |
  which language did {s} learn? | what does {s} speak at home?
!+ {s} can hold a conversation in {v}
!? which tongue can {s} converse in?

teach | somebody | school_subject | {s} teaches {v} | subject
+ {s} teaches {v} | {s} teaches {v} | {s} offers lessons in {v} | {s} lectures on {v} | pupils learn {v} from {s} |
  {s} has taught {v} <time>
? what does {s} teach? | which subject does {s} teach? | in what does {s} give lessons? | what do pupils learn from {s}? |
  on what does {s} lecture?

study | somebody | school_subject | {s} studies {v} | field of study
+ {s} studies {v} | {s} studies {v} | {s} reads {v} in <town> | {s} is a student of {v} | {s} took up {v} <time> |
  {s} wants a degree in {v}
? what does {s} study? | what does {s} study? | which subject does {s} study? | what is {s} a student of? |
  in what does {s} want a degree?

wear | somebody | colour | {s} wears {v} | colour of dress
+ {s} wears {v} | {s} is dressed in {v} | everything that {s} wears is {v} | {s} always wears {v}
? which colour does {s} wear? | what colour does {s} wear? | in which colour is {s} dressed? |
  what colour is everything that {s} wears?

allergic | somebody | ailment | {s} is allergic to {v} | allergy
+ {s} is allergic to {v} | {s} is allergic to {v} | {s} cannot stand {v} | {v} makes {s} ill | {s} has an allergy to {v} |
  keep {v} away from {s}
? what is {s} allergic to? | what is {s} allergic to? | what makes {s} ill? | what can {s} not stand? |
  which allergy does {s} have? | what must be kept away from {s}?
!+ {s} breaks out in a rash from {v}

reach | somebody | contact | {s} can be reached at {v} | contact
+ {s} can be reached at {v} | {s} can be reached at {v} | you can reach {s} at {v} | {s} is at {v} | write or call {s} at {v} |
  contact {s} at {v} | {v} is how you reach {s} | send it to {s} at {v}
? how can I reach {s}? | how can I reach {s}? | where can {s} be reached? | how do I contact {s}? | how do you get hold of {s}? |
  at what address or number can {s} be reached?
!+ drop {s} a line at {v}
!? where do I drop {s} a line?

sit | somebody | room | {s} sits in {v} | office
+ {s} sits in {v} | {s} has a desk in {v} | {s} can be found in {v} | {s} moved into {v} <time> | the desk of {s} is in {v} |
  you find {s} in {v}
? where does {s} sit? | in which room does {s} sit? | which room is {s} in? | where is the desk of {s}?

earn | somebody | price | {s} earns {v} | salary
+ {s} earns {v} | {s} earns {v} | {s} makes {v} a month | {s} is paid {v} | they pay {s} {v} | {s} gets {v} a week
? how much does {s} earn? | what does {s} earn? | how much is {s} paid? | what do they pay {s}? | how much money does {s} make?

won | event | somebody | {s} was won by {v} | winner
+ {s} was won by {v} | {v} won {s} | {v} won {s} | {v} came first in {s} | nobody but {v} could win {s} |
  the first prize of {s} went to {v}
? who won {s}? | who won {s}? | by whom was {s} won? | who came first in {s}? | who got the first prize of {s}? |
  which person won {s}?
!+ {v} triumphed in {s}
!? who triumphed in {s}?

lead | event | somebody | {s} is led by {v} | chair
+ {s} is led by {v} | {v} leads {s} | {v} is in charge of {s} | {s} is organized by {v} | {v} runs {s} | ask {v} about {s}
? who leads {s}? | who is in charge of {s}? | by whom is {s} led? | who organized {s}? | who runs {s}? | whom do I ask about {s}?

come | event | number | {s} had {v} visitors | attendance
+ {s} had {v} visitors | {v} people came to {s} | {s} was seen by {v} people | {s} drew a crowd of {v} |
  {v} tickets were sold for {s} | there were {v} visitors at {s}
? how many visitors did {s} have? | how many people came to {s}? | how many people saw {s}? | how large was the crowd at {s}? |
  how many were at {s}?

run on | ware | version | {s} runs on {v} | version
+ {s} runs on {v} | {s} runs {v} | {s} was updated to {v} | {v} is installed on {s} | they installed {v} on {s} |
  {s} has been on {v} <time>
? what does {s} run on? | which version does {s} run? | what is installed on {s}? | to which version was {s} updated? |
  which version is on {s}?

listen | ware | ip_address | {s} is at the address {v} | IP address
+ {s} is at the address {v} | {s} can be found at {v} | {s} is reachable under {v} | {s} listens on {v} |
  the address {v} leads to {s} | {v} belongs to {s} | ping {v} to see {s}
? which address does {s} have? | at which address is {s}? | under which IP address is {s} reachable? |
  where on the network is {s}? | on what does {s} listen? | what address leads to {s}?

sail | vehicle | speed | {s} goes {v} | speed
+ {s} goes {v} | {s} does {v} | {s} travels at {v} | {s} reaches {v} | at {v}, {s} is not slow | {s} makes {v} on a good day
? how fast does {s} go? | how fast is {s}? | what is the speed of {s}? | how fast does {s} travel? | which speed does {s} reach?

! painted | kept | somebody | {s} was painted by {v} | painter
+ {s} was painted by {v} | {v} painted {s} | the brush that made {s} was that of {v}
? who painted {s}? | by whom was {s} painted?

! guard | building | somebody | {s} is guarded by {v} | watchman
+ {s} is guarded by {v} | {v} guards {s} | {v} watches over {s}
? who guards {s}? | who watches over {s}?

! grow | venue | food | {s} grows {v} | crop
+ {s} grows {v} | behind the house, {s} grows {v} | the garden of {s} is full of {v}
? what does {s} grow? | what is grown by {s}?

! sleep | creature | spot | {s} sleeps {v} | bed
+ {s} sleeps {v} | {s} spends the night {v} | {v} sleeps {s}
? where does {s} sleep? | where does {s} spend the night?

! travel | somebody | city | {s} spends the holidays in {v} | destination
+ {s} spends the holidays in {v} | {s} goes to {v} on holiday | {s} is on holiday in {v}
? where does {s} spend the holidays? | where does {s} go on holiday?
"""
