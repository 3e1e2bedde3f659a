//! A connection of the load generator: requests one after the other, answers with a length. It shares the processors with the
//! service, so it does no more than that.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

pub(super) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(4_096) })
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Answer> {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes()).await
    }

    /// Sends JSON.
    pub(super) async fn post(&mut self, path: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let head = "content-type: application/json\r\ncontent-length";
        self.ask(format!("POST {path} HTTP/1.1\r\nhost: bench\r\n{head}: {length}\r\n\r\n{body}").as_bytes()).await
    }

    async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        loop {
            if let Some((status, head, length)) = parsed(&self.read)?
                && self.read.len() >= head + length
            {
                ensure!(self.read.len() == head + length, "more than one answer");
                let body = self.read.split_off(head);
                self.read.clear();
                return Ok(Answer { status, body });
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                bail!("the service has closed the connection");
            }
        }
    }
}

/// The status of the answer that `read` begins with, the length of its head and that of its body; `None` while the head is not whole.
fn parsed(read: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(read)? else { return Ok(None) };
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = std::str::from_utf8(length.context("an answer without a length")?.value)?.trim().parse()?;
    Ok(Some((answer.code.context("a status")?, head, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() -> Result<()> {
        let head = b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(parsed(head)?, Some((201, head.len(), 12)));
        assert_eq!(parsed(&head[..head.len() - 1])?, None);
        assert!(parsed(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        Ok(())
    }
}
