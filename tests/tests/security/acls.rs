//! Rights of accounts, in the words of Kafka, and the two requests that grant them and take them away. The Kafka client of the project
//! has no such request.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

const CREATE_ACLS: i16 = 30;
const VERSION: i16 = 1;
const ALLOW: i8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Topic = 2,
    Group = 3,
    TransactionalId = 5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Literal = 3,
    Prefixed = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    DescribeConfigs = 10,
}

/// One right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) resource: Resource,
    pub(crate) name: String,
    pub(crate) pattern: Pattern,
    pub(crate) operation: Operation,
}

/// Grants them to accounts. `broker` lets this process do everything.
pub(crate) fn grant(broker: &str, rights: &[(String, Right)]) {
    let mut body = i32::try_from(rights.len()).expect("few").to_be_bytes().to_vec();
    for (account, Right { resource, name, pattern, operation }) in rights {
        body.push(*resource as u8);
        text(&mut body, name);
        body.push(*pattern as u8);
        text(&mut body, &format!("User:{account}"));
        text(&mut body, "*");
        body.push(*operation as u8);
        body.extend(ALLOW.to_be_bytes());
    }
    let answer = ask(broker, CREATE_ACLS, &body);
    // After the throttle time and the number of results: a code each, and a text that is null where all is well.
    let results = answer[8..].chunks(4);
    assert_eq!((answer.len() - 8) / 4, rights.len(), "not granted: {answer:?}");
    for result in results {
        assert_eq!(&result[..2], [0, 0], "not granted: {answer:?}");
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(i16::try_from(text.len()).expect("a short text").to_be_bytes());
    body.extend(text.as_bytes());
}

fn ask(broker: &str, request: i16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(request.to_be_bytes());
    message.extend(VERSION.to_be_bytes());
    // The number of the request, and the name of the client.
    message.extend(1_i32.to_be_bytes());
    text(&mut message, "test");
    message.extend(body);
    let mut broker = TcpStream::connect(broker).expect("the broker is there");
    broker.write_all(&i32::try_from(message.len()).expect("a short message").to_be_bytes()).expect("it listens");
    broker.write_all(&message).expect("it listens");
    let mut size = [0; 4];
    broker.read_exact(&mut size).expect("it answers");
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size)).expect("a size")];
    broker.read_exact(&mut answer).expect("it answers");
    answer.split_off(4)
}
