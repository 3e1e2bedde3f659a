//! A wire to a server that a test can cut or silence (feature `wire`): what clients see of a network that fails.

use std::{
    fmt,
    future::pending,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
};

/// The largest piece that is carried at once where messages are not told apart.
const PIECE: usize = 8192;

type Rewrite = Arc<dyn Fn(&mut [u8]) + Send + Sync>;
type IsRequest = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A port of this machine that carries connections to a server until a test breaks them.
#[derive(Debug)]
pub struct Wire {
    /// Where clients connect to, on 127.0.0.1.
    pub port: u16,
    cuts: Arc<Cuts>,
}

/// What is going to happen to the wire.
#[derive(Default)]
struct Cuts {
    next_answer: AtomicBool,
    answer_to: Mutex<Option<IsRequest>>,
    mute: AtomicBool,
}

impl fmt::Debug for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuts").field("next_answer", &self.next_answer).field("mute", &self.mute).finish_non_exhaustive()
    }
}

/// How the bytes of a connection are divided into pieces.
#[derive(Clone)]
enum Pieces {
    /// As they arrive.
    Any,
    /// Messages that begin with their length, as four bytes in network order. The answers are rewritten on the way.
    Messages(Rewrite),
}

impl Wire {
    /// A wire to `server`, which is `(host, port)`.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn to(server: (String, u16)) -> io::Result<Self> {
        Self::lay(|_| (server, Pieces::Any)).await
    }

    /// A wire to a server whose messages begin with their length, as four bytes in network order (Kafka). It carries whole
    /// messages, and `rewrite` gets the wire's own port and each answer: a server that tells its clients where to connect
    /// would lead them past the wire.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn of_messages(
        server: (String, u16),
        rewrite: impl Fn(u16, &mut [u8]) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::lay(|port| (server, Pieces::Messages(Arc::new(move |answer: &mut [u8]| rewrite(port, answer))))).await
    }

    async fn lay(end: impl FnOnce(u16) -> ((String, u16), Pieces)) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let wire = Self { port: listener.local_addr()?.port(), cuts: Arc::default() };
        let (cuts, (server, pieces)) = (wire.cuts.clone(), end(wire.port));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A server that is down looks the same from the client's side: its connection ends.
                if let Ok(server) = TcpStream::connect(server.clone()).await {
                    tokio::spawn(carry(client, server, pieces.clone(), cuts.clone()));
                }
            }
        });
        Ok(wire)
    }

    /// Breaks the connection instead of carrying the next answer, on whichever connection it comes.
    pub fn cut_next_answer(&self) {
        self.cuts.next_answer.store(true, Ordering::SeqCst);
    }

    /// Breaks the connection of the next request that is one of these, when the server has answered it and before the client
    /// hears of it.
    pub fn cut_answer_to(&self, is_request: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        *self.cuts.answer_to() = Some(Box::new(is_request));
    }

    /// From now on swallows all answers, or no longer, and keeps the connections open: so does a network that was cut
    /// without a word.
    pub fn mute(&self, mute: bool) {
        self.cuts.mute.store(mute, Ordering::SeqCst);
    }

    /// Whether the cut that was asked for last has been made (that of an answer to a request: when the request has been sent).
    pub fn has_cut(&self) -> bool {
        !self.cuts.next_answer.load(Ordering::SeqCst) && self.cuts.answer_to().is_none()
    }
}

impl Cuts {
    fn answer_to(&self) -> std::sync::MutexGuard<'_, Option<IsRequest>> {
        self.answer_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the answer to this request is to be cut; asked once.
    fn takes(&self, request: &[u8]) -> bool {
        self.answer_to().take_if(|is_request| is_request(request)).is_some()
    }
}

/// Carries until one side ends the connection, or the test does. Then both ends are closed: the server must learn that its
/// client is gone.
async fn carry(client: TcpStream, server: TcpStream, pieces: Pieces, cuts: Arc<Cuts>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let doomed = AtomicBool::new(false);
    let asks = async {
        while let Ok(request) = piece(&mut from_client, &pieces).await {
            if cuts.takes(&request) {
                doomed.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&request).await.is_err() {
                return;
            }
        }
    };
    let answers = async {
        while let Ok(mut answer) = piece(&mut from_server, &pieces).await {
            if doomed.load(Ordering::SeqCst) || cuts.next_answer.swap(false, Ordering::SeqCst) {
                return;
            }
            if let Pieces::Messages(rewrite) = &pieces {
                rewrite(&mut answer);
            }
            if !cuts.mute.load(Ordering::SeqCst) && to_client.write_all(&answer).await.is_err() {
                return;
            }
        }
        // The end of the connection is an answer too.
        if cuts.mute.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = asks => {}
        () = answers => {}
    }
}

/// The next piece, whole.
async fn piece(from: &mut OwnedReadHalf, pieces: &Pieces) -> io::Result<Vec<u8>> {
    match pieces {
        Pieces::Any => {
            let mut piece = vec![0; PIECE];
            let bytes = from.read(&mut piece).await?;
            if bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            piece.truncate(bytes);
            Ok(piece)
        }
        Pieces::Messages(_) => {
            let mut length = [0; 4];
            from.read_exact(&mut length).await?;
            let mut message = length.to_vec();
            message.resize(4 + usize::try_from(u32::from_be_bytes(length)).unwrap_or_default(), 0);
            from.read_exact(&mut message[4..]).await?;
            Ok(message)
        }
    }
}
