//! Messages as mails, over SMTP.

use std::time::Duration;

use evenfold::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor, address::AddressError, message::Mailbox,
    transport::smtp,
};

use super::{Message, Notifier, NotifyError};
use crate::rules::MailRules;

/// How long the server may take for each of its answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Sends mails through a server. A mail carries an id that is made of the message's key, by which servers and mailboxes recognise one
/// that comes again.
#[derive(Debug, Clone)]
pub struct MailNotifier {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    customers_at: String,
}

impl MailNotifier {
    /// Sends through the server at `url`: `smtps://user:password@host`, `smtp://host:25`.
    ///
    /// # Errors
    /// [`MailError`].
    pub fn new(url: &str, rules: &MailRules) -> Result<Self, MailError> {
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)?.timeout(Some(ANSWERS_WITHIN)).build();
        Ok(Self { server, from: rules.from.parse()?, customers_at: rules.customers_at.clone() })
    }

    fn mail(&self, message: &Message) -> Result<Mail, MailError> {
        let to = format!("{}@{}", message.customer, self.customers_at).parse()?;
        let id = format!("<{}@{}>", message.key, self.from.email.domain());
        let mail = Mail::builder().message_id(Some(id)).from(self.from.clone()).to(to).subject(&message.subject);
        Ok(mail.body(message.text.clone())?)
    }
}

#[async_trait]
impl Notifier for MailNotifier {
    async fn send(&self, message: &Message) -> Result<(), NotifyError> {
        let mail = self.mail(message).map_err(|error| NotifyError::Permanent(error.into()))?;
        match self.server.send(mail).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(NotifyError::Permanent(error.into())),
            Err(error) => Err(NotifyError::Transient(error.into())),
        }
    }
}

/// Why mails cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The server's URL.
    #[error("the URL of the mail server is invalid")]
    Server(#[from] smtp::Error),
    /// The address of the shop or of a customer.
    #[error("the address of a mail is invalid")]
    Address(#[from] AddressError),
    /// The text or a header.
    #[error("the mail is invalid")]
    Mail(#[from] lettre::error::Error),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::error::with_causes;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;
    use crate::notification::Channel;

    /// Takes one mail and returns what it was sent; refuses all recipients if told so.
    async fn take(listener: TcpListener, refuses: bool) -> Vec<String> {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let (mut lines, mut told, mut is_text) = (BufReader::new(read).lines(), Vec::new(), false);
        write.write_all(b"220 here\r\n").await.unwrap();
        while let Some(line) = lines.next_line().await.unwrap() {
            let answer = match line.as_str() {
                "." => "250 taken",
                "DATA" => "354 go on",
                "QUIT" => "221 bye",
                _ if line.starts_with("RCPT") && refuses => "550 no such mailbox",
                _ => "250 well",
            };
            is_text = (is_text || line == "DATA") && line != ".";
            let is_done = line == "." || answer.starts_with("550");
            if !is_text || line == "DATA" {
                write.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            }
            told.push(line);
            if is_done {
                break;
            }
        }
        told
    }

    fn message() -> Message {
        let (subject, text) = ("Your order ORD-1 is cancelled".to_owned(), "The card has expired.".to_owned());
        let customer = "USR-1".parse().unwrap();
        Message { key: "ORD-1-cancelled".to_owned(), customer, channel: Channel::Mail, subject, text }
    }

    /// The address of a server, and a notifier that sends through it.
    async fn server() -> (TcpListener, MailNotifier) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let rules = MailRules { from: "shop@example.org".to_owned(), customers_at: "example.com".to_owned() };
        (listener, MailNotifier::new(&url, &rules).unwrap())
    }

    /// Each attempt has the same id, by which a mail that comes again is recognised.
    #[tokio::test]
    async fn a_mail_carries_an_id_that_is_made_of_its_key() {
        let (listener, notifier) = server().await;
        let taken = tokio::spawn(take(listener, false));
        notifier.send(&message()).await.unwrap();
        let told = taken.await.unwrap();
        let has = |line: &str| assert!(told.iter().any(|told| told == line), "{line} in {told:#?}");
        has("RCPT TO:<USR-1@example.com>");
        has("Message-ID: <ORD-1-cancelled@example.org>");
        has("Subject: Your order ORD-1 is cancelled");
        has("The card has expired.");
    }

    #[tokio::test]
    async fn r14_a_notifier_shows_no_password_in_a_debugger_nor_does_an_error_of_its_url() {
        let notifier = MailNotifier::new("smtps://shop:geheim@mail.example.org", &MailRules::default()).unwrap();
        assert!(!format!("{notifier:?}").contains("geheim"), "{notifier:?}");
        for url in ["ftp://shop:geheim@host", "smtps://shop:geheim@host:port", "smtps:shop:geheim"] {
            let Err(error) = MailNotifier::new(url, &MailRules::default()) else { continue };
            assert!(!format!("{} {error:?}", with_causes(&error)).contains("geheim"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_is_not_asked_again_and_one_that_is_gone_is() {
        let (listener, notifier) = server().await;
        let taken = tokio::spawn(take(listener, true));
        assert!(matches!(notifier.send(&message()).await, Err(NotifyError::Permanent(_))));
        taken.await.unwrap();
        let (gone, notifier) = server().await;
        drop(gone);
        assert!(matches!(notifier.send(&message()).await, Err(NotifyError::Transient(_))));
        assert!(matches!(MailNotifier::new("http://host", &MailRules::default()), Err(MailError::Server(_))));
    }
}
