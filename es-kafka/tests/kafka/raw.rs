//! Records that no client library produces, written by the protocol itself.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use crate::setup::{PATIENCE, brokers};

/// A name that is not UTF-8.
pub(crate) const NOT_UTF8: &[u8] = &[b'n', 0xff, 0xfe];

/// Writes a record, and returns its offset. (`Produce` in version 3, to a broker that leads the partition.)
pub(crate) fn produce(topic: &str, partition: i32, key: &str, headers: &[(&[u8], &[u8])], value: &str) -> i64 {
    let records = batch(key.as_bytes(), headers, value.as_bytes());
    let mut request = Vec::new();
    for number in [0_i16, 3] {
        request.extend(number.to_be_bytes());
    }
    request.extend(7_i32.to_be_bytes());
    // Neither client nor transaction have a name, and all replicas are to have it.
    for number in [-1_i16, -1, -1] {
        request.extend(number.to_be_bytes());
    }
    for number in [30_000, 1] {
        request.extend(i32::to_be_bytes(number));
    }
    request.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
    request.extend(topic.as_bytes());
    for number in [1, partition, i32::try_from(records.len()).unwrap()] {
        request.extend(number.to_be_bytes());
    }
    request.extend(records);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = asked(&request).unwrap();
        // After its own number, one topic with its name, and the number of one partition.
        let answer = &answer[4 + 4 + 2 + topic.len() + 4 + 4..];
        let (code, rest) = answer.split_at(2);
        match i16::from_be_bytes(code.try_into().unwrap()) {
            0 => return i64::from_be_bytes(rest[..8].try_into().unwrap()),
            code => assert!(Instant::now() < deadline, "the broker refuses it: {code}"),
        }
    }
}

fn asked(request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(brokers())?;
    stream.write_all(&i32::try_from(request.len()).unwrap().to_be_bytes())?;
    stream.write_all(request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// A batch of one record, in the format of Kafka 0.11 and later.
fn batch(key: &[u8], headers: &[(&[u8], &[u8])], value: &[u8]) -> Vec<u8> {
    // Attributes, and what its time and offset are more than those of the batch.
    let mut record = vec![0, 0, 0];
    put(&mut record, key);
    put(&mut record, value);
    varint(&mut record, headers.len());
    for (name, value) in headers {
        put(&mut record, name);
        put(&mut record, value);
    }
    let mut checked = vec![0; 2 + 4];
    let now = chrono::Utc::now().timestamp_millis();
    for number in [now, now, -1] {
        checked.extend(number.to_be_bytes());
    }
    checked.extend((-1_i16).to_be_bytes());
    for number in [-1_i32, 1] {
        checked.extend(number.to_be_bytes());
    }
    varint(&mut checked, record.len());
    checked.extend(record);
    let mut batch = vec![0; 8];
    batch.extend(i32::try_from(4 + 1 + 4 + checked.len()).unwrap().to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

/// Bytes behind their length.
fn put(into: &mut Vec<u8>, bytes: &[u8]) {
    varint(into, bytes.len());
    into.extend(bytes);
}

/// A number that is not negative, as Kafka writes numbers of either sign: seven bits a byte, the last ones first.
fn varint(into: &mut Vec<u8>, number: usize) {
    let mut rest = number * 2;
    while rest > 0x7f {
        into.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    into.push(u8::try_from(rest).unwrap());
}

/// Castagnoli's.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))))
}
