"""Support chats of the demo: a customer with a matter, an assistant who settles it, and whatever else comes up."""

# ruff: noqa: RUF001 - customers write in many languages

from dataclasses import dataclass

from graphql_api.demo.history import Branch, History, assistant, system, user
from graphql_api.demo.text import Writer
from schema.message_input import MessageInput

# One chat in so many (and which of them) is deleted, or has a message that its customer took back.
DELETED = (41, 2)
TAKEN_BACK = (7, 1)

Turns = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Matter:
    """What a chat is about: its name, and what each turn may say, the customer first."""

    name: str
    turns: Turns
    language: str = "en"


SYSTEM = (
    (
        "You are the support assistant of {company}. Be brief and kind, ask for the order number before you promise "
        "anything, and hand over to a person when money above 200 € is at stake. Answer in the customer's language."
    ),
    (
        "You help customers of {company}. Never invent a delivery date: say what the carrier says. Sign off with your "
        "name, {first}."
    ),
)

MATTERS = (
    Matter(
        "Where is {order}?",
        (
            (
                "Hi, I ordered {product} on {date} and nothing has come yet. Order {order}.",
                "Order {order} – it said {day}, and it is {~day} now. Where is it?",
                "hello?? my parcel to {city} has been 'in transit' for {small} days 😕 ({order})",
            ),
            (
                (
                    "I am sorry about the wait. I see {order}: {product}, handed to {carrier} on {date}, last scanned "
                    "in {city}. May I check the address with you?"
                ),
                (
                    "Thank you for the order number. {carrier} scanned the parcel in {~city} at {clock} and it has not "
                    "moved since. That is not normal, so I have opened a search."
                ),
            ),
            (
                "The address is right, it came there last time too.",
                "Yes. Third floor, the bell says {person}.",
                "it's the same address as always",
            ),
            (
                (
                    "Good. {carrier} now says {day} between {clock} and the evening. If it is not there by then I will "
                    "send another one without asking you for anything."
                ),
                "Thank you. The search takes {small} working days at most. You will get a mail at {mail} either way.",
            ),
        ),
    ),
    Matter(
        "Refund of {amount} €",
        (
            (
                "I sent {product} back on {date} and still have no refund. It was {amount} €, order {order}.",
                "Your return portal shows 'received' since {day}, but my bank shows nothing. {order}",
            ),
            (
                (
                    "I see the return of {order}: it arrived in {city} on {date} and was checked by {first}. {amount} "
                    "€ went back to your card that day; banks show it after three to five working days."
                ),
                (
                    "The parcel is here, thank you. The refund of {amount} € was stuck because the card had expired. "
                    "Which account should it go to?"
                ),
            ),
            ("My card is fine, could you look again?", "To the same card please. The new one ends in {many}."),
            (
                (
                    "I looked again and you are right: the first attempt was refused. I have started it anew, "
                    "reference {ticket}. It cannot be refused twice for the same reason."
                ),
                (
                    "Done. Reference {ticket}. If it is not there by {day}, write here and we pick it up without "
                    "questions."
                ),
            ),
        ),
    ),
    Matter(
        "Cannot sign in",
        (
            (
                "The reset mail never comes. My address is {mail}.",
                "I'm locked out since this morning, it says 'too many attempts' and I only tried {small} times",
            ),
            (
                (
                    "Mails to {mail} were bounced by your provider since {date}. I have lifted the block on our side; "
                    "please ask for the reset once more."
                ),
                "Someone tried from {~city} as well, so the account locked itself. Was that you?",
            ),
            ("Came through now, thanks {emoji}", "No, I am in {city}. Should I worry?"),
            (
                "Glad to hear it. Under Settings → Security you can add a passkey, then no mail is needed at all.",
                (
                    "Nothing was opened: the password was wrong each time. I signed out all devices, and the new "
                    "password takes effect at once."
                ),
            ),
        ),
    ),
    Matter(
        "Charged twice",
        (
            ("You took {amount} € twice on {date}. Please explain.", "two payments for {order}, same minute. why?"),
            (
                (
                    "I see both: one is the payment, the other a reservation that falls away by itself by {day}. You "
                    "pay {amount} € once."
                ),
                (
                    "That should not happen, and I am sorry. The second payment was made by a retry after '{error}'. I "
                    "have returned it, reference {ticket}."
                ),
            ),
            ("My bank says it is booked, not reserved.", "ok. how do I know it won't happen next month?"),
            (
                (
                    "Then I trust your bank more than our screen. {amount} € are on the way back, and {person} from "
                    "accounting will write to {mail} with the receipt."
                ),
                "Each payment now carries a key that the bank accepts only once. A retry then changes nothing.",
            ),
        ),
    ),
    Matter(
        "Arrived broken: {order}",
        (
            (
                "{product} arrived with a crack along the side. Photos attached. {order}",
                "One of the parts is missing, bag {small} is empty. Order {order}",
            ),
            (
                (
                    "That is a pity, and thank you for the photos. Would you rather have a new one, or keep it for "
                    "{percent} % less?"
                ),
                "I can send bag {small} alone, it would be in {city} on {day}. Or do you prefer to return it all?",
            ),
            ("A new one, please. Do I have to send this back?", "Just the missing part, the rest is fine {emoji}"),
            (
                "No need: recycle it if you can. The new one leaves today with {carrier}, tracking follows to {mail}.",
                "It is packed. {carrier} brings it without a signature. Enjoy building!",
            ),
        ),
    ),
    Matter(
        "Lieferung nach {city}",
        (
            ("Guten Tag, meine Bestellung {order} sollte am {date} kommen. Können Sie nachsehen?",),
            (
                (
                    "Gern. {carrier} hat das Paket in {city} und stellt es morgen zu. Soll es bei Nachbarn abgegeben "
                    "werden dürfen?"
                ),
            ),
            ("Ja, bei {person} im Erdgeschoss. Vielen Dank!",),
            ("Ist vermerkt. Schöne Grüße, und melden Sie sich, falls etwas fehlt. {emoji}",),
        ),
        "de",
    ),
    Matter(
        "Remboursement de {order}",
        (
            ("Bonjour, j'ai renvoyé l'article le {date} et j'attends toujours {amount} €.",),
            ("Bonjour ! Le colis est bien arrivé à {city}. Le virement part aujourd'hui, référence {ticket}.",),
            ("Merci. Combien de temps faut-il compter ?",),
            ("Trois jours ouvrés en général. Je reste à votre disposition.",),
        ),
        "fr",
    ),
    Matter(
        "Cambio de dirección",
        (
            ("Hola, me mudé a {city} y el pedido {order} va a la casa vieja. ¿Se puede cambiar?",),
            ("¡Claro! Todavía está en el almacén. ¿Cuál es la dirección nueva?",),
            ("Calle Mayor {small}, 2.º B, a nombre de {person}.",),
            ("Listo, llegará el {date} con {carrier}. ¡Suerte con la mudanza! {emoji}",),
        ),
        "es",
    ),
    Matter(
        "{order} の配送について",
        (
            ("{city}への配送状況を教えてください。注文番号は{order}です。",),
            ("お問い合わせありがとうございます。{carrier}が{clock}に荷物を受け取りました。明日お届けの予定です。",),
            ("不在の場合はどうなりますか？",),
            ("宅配ボックスに入れるか、翌日に再配達いたします。ご都合はいかがでしょうか。🙇",),
        ),
        "ja",
    ),
    Matter(
        "استرداد المبلغ {order}",
        (
            ("مرحبا، دفعت {amount} يورو مرتين للطلب {order}.",),
            ("نعتذر عن ذلك. أعدنا الدفعة الثانية اليوم، ورقم المرجع {ticket}.",),
            ("شكرا جزيلا، متى تصل إلى حسابي؟",),
            ("خلال ثلاثة أيام عمل. يسعدنا أن نساعدك دائما 🌿",),
        ),
        "ar",
    ),
    Matter(
        "{order} डिलीवरी",
        (
            ("नमस्ते, मेरा ऑर्डर {order} अभी तक नहीं आया। क्या आप देख सकते हैं?",),
            ("नमस्ते! पार्सल {carrier} के पास है और कल {clock} तक पहुँच जाएगा।",),
            ("ठीक है, धन्यवाद {emoji}",),
            ("आपका दिन शुभ हो! कोई और मदद चाहिए तो लिखिए।",),
        ),
        "hi",
    ),
)

# What else comes up, question and answer.
ASIDES = (
    (
        "While you are here: do you ship {product} to {~city}?",
        "Yes, {~carrier} takes {~small} days and it costs {~amount} €.",
    ),
    ("Can I change the invoice to {company}?", "Done, the new invoice is on its way to {~mail}."),
    (
        "Is there a discount for orders above {~amount} €?",
        "There is: {~percent} % until {~date}, with the code {colour}-{small}.",
    ),
    ("What time do you close?", "People answer until {~clock}, I am here around the clock."),
    ("Does it come in {~colour}?", "In {~colour} and {~colour}; {~colour} comes back in stock on {~date}."),
    ("ok thx {~emoji}", "You are welcome {~emoji}"),
    ("How long is the warranty?", "{~small} years. Keep the mail about {order}, it is all we need."),
    ("Could somebody call me instead?", "Of course. {~person} can call on {~day} at {~clock}. Would that suit you?"),
    (
        "And if I am not at home on {~day}?",
        "Then it waits for {~small} days in the shop around the corner, opening at 08:00.",
    ),
    (
        "My neighbour got hers already, ordered later!",
        "From {~city} it is a shorter way. I understand that it is annoying.",
    ),
)
CLOSING = (
    ("That is all, thank you!", "Thank you for your patience. Have a good {day}!"),
    ("Great service, {first} {emoji}", "That made my day. Until next time!"),
    ("fine.", "I have noted that you waited longer than you should have. Take care."),
)


def write(seed: int, number: int) -> History:
    """Write a chat."""
    key = f"chat-{number}"
    writer = Writer(f"{seed}/{key}")
    matter = writer.one(MATTERS)
    history = History(
        seed,
        key,
        writer.fill(matter.name),
        kind="support",
        customer=writer.fill("{person}"),
        channel=writer.one(("web", "mail", "app")),
        language=matter.language,
    )
    model = writer.fill("{model}")
    messages = history.root.messages
    messages.append(system(writer.fill(writer.one(SYSTEM))))
    messages += _speak(writer, model, [writer.one(turn) for turn in matter.turns])
    for aside in writer.some(ASIDES, 0, 6):
        messages += _speak(writer, model, aside)
    if writer.happens(0.8):
        messages += _speak(writer, model, writer.one(CLOSING))
    if _is(number, TAKEN_BACK):
        _take_back(writer, history.root)
    history.root.deleted = _is(number, DELETED)
    return history


def aside(writer: Writer, model: str) -> list[MessageInput]:
    """Write a question and its answer."""
    return _speak(writer, model, writer.one(ASIDES))


def _is(number: int, chosen: tuple[int, int]) -> bool:
    every, which = chosen
    return number % every == which


def _take_back(writer: Writer, chat: Branch) -> None:
    """Let the customer send a secret by mistake, and delete it."""
    chat.messages.append(user(writer.fill("My card is 4242 4242 4242 {many}, can you use that?")))
    chat.deleted_versions.append(len(chat.messages))
    chat.messages.append(assistant("Please never send card numbers here. I have deleted your message.", "human"))


def _speak(writer: Writer, model: str, turns: list[str] | tuple[str, ...]) -> list[MessageInput]:
    texts = [writer.fill(turn) for turn in turns]
    return [user(text) if index % 2 == 0 else assistant(text, model) for index, text in enumerate(texts)]
