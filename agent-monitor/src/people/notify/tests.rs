//! Tests with a listener on loopback.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};

use super::*;

/// Reads one request and answers it; head and body.
fn answer(mut stream: TcpStream, status: &str) -> (String, String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line == "\r\n" || line.is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn a_notice_is_signed_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "s3cret\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        webhook: Some(format!("http://{}/hook?x=1", listener.local_addr().unwrap())),
        webhook_secret: Some(key),
        ..Settings::default()
    };
    let mut notifier = Notifier::start(&settings, |_| false).unwrap();
    assert!(notifier.is_on());
    notifier.tell(r#"{"a":1}"#.to_owned());
    answer(listener.accept().unwrap().0, "503 Not now");
    let (head, body) = answer(listener.accept().unwrap().0, "204 Thanks");
    assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, r#"{"a":1}"#);
    let sent = head.lines().find_map(|line| line.strip_prefix("Agent-Monitor-Signature: ")).unwrap();
    let seconds = sent.strip_prefix("t=").and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap();
    assert_eq!(sent, signature(b"s3cret", seconds, &body));
    assert_ne!(sent, signature(b"other", seconds, &body));
    notifier.end();
}

#[test]
fn a_refusal_is_not_repeated_and_the_next_notice_goes_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let settings = Settings { webhook: Some(url), ..Settings::default() };
    let mut notifier = Notifier::start(&settings, |_| false).unwrap();
    notifier.tell("1".to_owned());
    notifier.tell("2".to_owned());
    let (head, body) = answer(listener.accept().unwrap().0, "401 No");
    assert!(body == "1" && !head.contains("Signature"), "{head}");
    assert_eq!(answer(listener.accept().unwrap().0, "200 OK").1, "2");
    notifier.end();
}

#[test]
fn a_program_gets_the_notice() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("got");
    let script = format!("cat > {}.new; mv {}.new {}", to.display(), to.display(), to.display());
    let hook = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
    let mut notifier = Notifier::start(&Settings { hook, ..Settings::default() }, |_| false).unwrap();
    notifier.tell("hello".to_owned());
    notifier.end();
    assert_eq!(std::fs::read_to_string(to).unwrap(), "hello");
}

#[test]
fn places_are_checked() {
    for bad in ["https://x", "http://", "http://a b/", "http://u:p@h/", "http://h:99999/"] {
        assert!(Url::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(Url::parse("http://[::1]:8080/a").unwrap().to_string(), "http://[::1]:8080/a");
    assert_eq!(Url::parse("http://h").unwrap().to_string(), "http://h:80/");
}
