//! Class `connection` (AMQP 0-9-1 section 1.4), with RabbitMQ's capabilities, `connection.blocked` and `update-secret`.
//!
//! | method | here |
//! |---|---|
//! | start-ok | PLAIN and AMQPLAIN; a wrong password is answered by 403 where the client knows that, else the socket is closed |
//! | tune-ok | limits over ours, and 0 for none, are refused by 530 (RabbitMQ 4.x; 3.10 closes the socket without a word) |
//! | open | a virtual host that is not there: 530 |
//! | update-secret | any secret is taken |

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::{Cx, Failure, fault};
use crate::amqp::{Table, Value};
use crate::embedded::amqp::broker::Refusal;
use crate::embedded::amqp::channel::Channel;
use crate::embedded::amqp::connection::{Capabilities, Connection, Phase};
use crate::embedded::amqp::wire::method::Request;
use crate::embedded::amqp::wire::method::connection::{
    CloseOk, Open, OpenOk, StartOk, Tune, TuneOk, UpdateSecretOk,
};
use crate::embedded::amqp::wire::{Reader, Short, table};

/// The smallest frame that must be possible.
const FRAME_MIN: u32 = 4096;

/// What the server says of itself, as a table without its length.
pub(in crate::embedded::amqp) fn server_properties() -> BytesMut {
    let capabilities: Table = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
    ]
    .into_iter()
    .map(|name| (name, Value::Bool(true)))
    .collect();
    let mut out = BytesMut::new();
    table::encode_field(b"capabilities", &Value::Table(capabilities), &mut out);
    for (name, text) in [
        ("cluster_name", "muslin@localhost"),
        ("information", "An embedded broker that speaks as RabbitMQ does"),
        ("platform", concat!("muslin ", env!("CARGO_PKG_VERSION"))),
        // Clients look at these two for what they may use.
        ("product", "RabbitMQ"),
        ("version", "3.10.8"),
    ] {
        table::encode_field(name.as_bytes(), &Value::Text(text.to_owned()), &mut out);
    }
    out
}

/// A request on channel 0.
pub(in crate::embedded::amqp) fn handle(
    cx: &mut Cx<'_>,
    channels: &mut BTreeMap<u16, Channel>,
    request: Request<'_>,
) -> Result<(), Failure> {
    if cx.link.phase == Phase::Closing {
        match request {
            Request::ConnectionClose(_) => cx.link.send(0, &CloseOk {}),
            Request::ConnectionCloseOk(_) => Connection::ended(cx.link),
            _ => {}
        }
        return Ok(());
    }
    if !cx.core.faults.is_empty() && !fault::before(cx, None, &request)? {
        return Ok(());
    }
    match (cx.link.phase, request) {
        (Phase::Starting, Request::ConnectionStartOk(m)) => start(cx, m),
        (Phase::Tuning, Request::ConnectionTuneOk(m)) => tune(cx, m),
        (Phase::Opening, Request::ConnectionOpen(m)) => open(cx, m),
        (Phase::Running | Phase::Opening | Phase::Tuning, Request::ConnectionClose(_)) => {
            close(cx, channels);
            Ok(())
        }
        (Phase::Running, Request::ConnectionUpdateSecret(_)) => {
            cx.link.send(0, &UpdateSecretOk {});
            Ok(())
        }
        (phase, _) => {
            let state = match phase {
                Phase::Starting => "starting",
                Phase::Tuning => "tuning",
                Phase::Opening => "opening",
                _ => "running",
            };
            let text = format!("CHANNEL_ERROR - unexpected method in connection state {state}");
            Err(Failure::new(504, text))
        }
    }
}

fn start(cx: &mut Cx<'_>, m: StartOk<'_>) -> Result<(), Failure> {
    let properties = table::decode(m.client_properties.0)
        .map_err(|_| Failure::new(501, "FRAME_ERROR - client properties that are broken".to_owned()))?;
    let empty = Table::new();
    let known = properties.get("capabilities").and_then(Value::as_table).unwrap_or(&empty);
    let can = |name: &str| known.get(name).and_then(Value::as_bool) == Some(true);
    cx.link.capabilities = Capabilities {
        authentication_failure_close: can("authentication_failure_close"),
        connection_blocked: can("connection.blocked"),
        consumer_cancel_notify: can("consumer_cancel_notify"),
    };
    let text = |name: &str| properties.get(name).and_then(Value::as_str);
    cx.link.name = text("connection_name").or_else(|| text("product")).map(str::to_owned);
    let credentials = match m.mechanism.0 {
        b"PLAIN" => plain(m.response.0),
        b"AMQPLAIN" => amqplain(m.response.0),
        _ => {
            let text = format!("unknown authentication mechanism '{}'", m.mechanism.lossy());
            return Err(Refusal::command_invalid(text).into());
        }
    };
    let Some((user, password)) = credentials else {
        return Err(Failure::new(502, "SYNTAX_ERROR - response invalid".to_owned()));
    };
    if !cx.core.broker.login(&user, &password) {
        let text = format!(
            "Login was refused using authentication mechanism {}. For details see the broker logfile.",
            m.mechanism.lossy()
        );
        return Err(Failure::from(Refusal::access_refused(text)).of_method((0, 0)));
    }
    cx.link.user = String::from_utf8_lossy(&user).into_owned();
    let settings = &cx.core.settings;
    let tune = Tune {
        channel_max: settings.channel_max,
        frame_max: settings.frame_max,
        heartbeat: settings.heartbeat,
    };
    cx.link.send(0, &tune);
    cx.link.phase = Phase::Tuning;
    Ok(())
}

/// User and password.
type Credentials = (Vec<u8>, Vec<u8>);

/// SASL PLAIN (RFC 4616), without an authorization identity: a NUL, the user, a NUL, the password.
fn plain(response: &[u8]) -> Option<Credentials> {
    let [0, rest @ ..] = response else { return None };
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (user, password) = (rest.get(..end)?, rest.get(end + 1..)?);
    (!password.contains(&0)).then(|| (user.to_vec(), password.to_vec()))
}

/// AMQPLAIN: a table without its length, of LOGIN and PASSWORD.
fn amqplain(response: &[u8]) -> Option<Credentials> {
    let mut user = None;
    let mut password = None;
    for field in table::Fields::new(response) {
        let field = field.ok()?;
        let place = match field.name {
            b"LOGIN" => &mut user,
            b"PASSWORD" => &mut password,
            _ => continue,
        };
        let [b'S', value @ ..] = field.value else { return None };
        *place = Some(Reader(value).long().ok()?.to_vec());
    }
    user.zip(password)
}

fn tune(cx: &mut Cx<'_>, m: TuneOk) -> Result<(), Failure> {
    let settings = &cx.core.settings;
    negotiated("frame_max", m.frame_max, FRAME_MIN, settings.frame_max)?;
    negotiated("channel_max", m.channel_max.into(), 1, settings.channel_max.into())?;
    let link = &mut *cx.link;
    link.frame_max = usize::try_from(m.frame_max).unwrap_or(usize::MAX);
    link.channel_max = m.channel_max;
    link.heartbeat = m.heartbeat;
    link.phase = Phase::Opening;
    Connection::start_heartbeat(link, cx.now);
    Ok(())
}

fn negotiated(field: &str, value: u32, least: u32, most: u32) -> Result<(), Failure> {
    let (how, which, limit) = if value != 0 && value < least {
        ("lower", "minimum", least)
    } else if value == 0 || value > most {
        ("higher", "maximum", most)
    } else {
        return Ok(());
    };
    let text = format!("negotiated {field} = {value} is {how} than the {which} allowed value ({limit})");
    Err(Failure::from(Refusal::not_allowed(text)).of_method((10, 30)))
}

fn open(cx: &mut Cx<'_>, m: Open<'_>) -> Result<(), Failure> {
    let vhost = cx.core.broker.open_vhost(cx.link.user.as_bytes(), m.virtual_host.0)?;
    cx.link.vhost = Some(vhost);
    cx.link.vhost_name = m.virtual_host.lossy().into_owned();
    cx.link.send(0, &OpenOk { reserved: Short(b"") });
    Connection::opened(cx.link);
    Ok(())
}

fn close(cx: &mut Cx<'_>, channels: &mut BTreeMap<u16, Channel>) {
    for channel in channels.values_mut() {
        super::channel::drop_quietly(cx, channel);
    }
    channels.clear();
    cx.core.broker.release_connection(cx.link.id);
    cx.link.send(0, &CloseOk {});
    Connection::ended(cx.link);
}
