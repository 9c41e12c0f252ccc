//! Exchanges: declared, deleted, and what each type looks a key up in.
//!
//! The types are direct, fanout, topic and headers; the default exchange is the queues' names themselves. An unknown
//! type is refused with 503 COMMAND_INVALID, as until RabbitMQ 4.2.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Broker;
use super::api::{ExchangeDeclare, ExchangeKey, VhostKey};
use super::arguments::{same, same_argument, type_name};
use super::bindings::BindingId;
use super::headers::Pattern;
use super::name::ShortStr;
use super::refusal::Refusal;
use super::targets::{Target, Targets};
use super::topic::Patterns;
use crate::amqp::{Table, Value};

/// An exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) vhost: VhostKey,
    pub(super) name: ShortStr,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    pub(super) arguments: Table,
    pub(super) alternate: Option<ShortStr>,
    /// All bindings that start here.
    pub(super) bindings: BTreeSet<BindingId>,
    /// Exchanges with bindings that end here, and how many.
    pub(super) sources: BTreeMap<ExchangeKey, usize>,
    pub(super) router: Router,
}

/// What a message's routing keys or headers are looked up in.
#[derive(Debug)]
pub(super) enum Router {
    Direct(HashMap<ShortStr, Targets>),
    Fanout(Targets),
    Topic(Patterns),
    Headers(BTreeMap<BindingId, Pattern>),
}

impl Router {
    fn new(kind: &[u8]) -> Option<Self> {
        Some(match kind {
            b"direct" => Self::Direct(HashMap::new()),
            b"fanout" => Self::Fanout(Targets::default()),
            b"topic" => Self::Topic(Patterns::new()),
            b"headers" => Self::Headers(BTreeMap::new()),
            _ => return None,
        })
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Fanout(_) => "fanout",
            Self::Topic(_) => "topic",
            Self::Headers(_) => "headers",
        }
    }

    /// A binding was made. `pattern` is that of its arguments, which only headers exchanges look at.
    pub(super) fn add(&mut self, id: &BindingId, pattern: Pattern) {
        let target = id.target;
        match self {
            Self::Direct(keys) => keys.entry(id.key.clone()).or_default().add(target),
            Self::Fanout(targets) => targets.add(target),
            Self::Topic(patterns) => {
                if let Some(targets) = patterns.targets_mut(&id.key) {
                    targets.add(target);
                }
            }
            Self::Headers(bindings) => {
                bindings.insert(id.clone(), pattern);
            }
        }
    }

    /// A binding was taken away.
    pub(super) fn remove(&mut self, id: &BindingId) {
        let target = id.target;
        match self {
            Self::Direct(keys) => {
                if let Some(targets) = keys.get_mut(&id.key) {
                    targets.remove(target);
                    if targets.is_empty() {
                        keys.remove(&id.key);
                    }
                }
            }
            Self::Fanout(targets) => targets.remove(target),
            Self::Topic(patterns) => {
                if let Some(targets) = patterns.targets_mut(&id.key) {
                    targets.remove(target);
                }
                patterns.tidy(&id.key);
            }
            Self::Headers(bindings) => {
                bindings.remove(id);
            }
        }
    }
}

/// The exchanges that every virtual host has: name, type, internal.
const PREDECLARED: [(&str, &[u8], bool); 6] = [
    ("amq.direct", b"direct", false),
    ("amq.fanout", b"fanout", false),
    ("amq.topic", b"topic", false),
    ("amq.headers", b"headers", false),
    ("amq.match", b"headers", false),
    ("amq.rabbitmq.trace", b"topic", true),
];

impl Broker {
    pub(super) fn add_predeclared_exchanges(&mut self, vhost: VhostKey) {
        for (name, kind, internal) in PREDECLARED {
            let Some(router) = Router::new(kind) else { continue };
            let declare = ExchangeDeclare {
                name: name.as_bytes(),
                kind,
                durable: true,
                internal,
                ..ExchangeDeclare::default()
            };
            self.add_exchange(vhost, &declare, None, router);
        }
    }

    fn add_exchange(
        &mut self,
        vhost: VhostKey,
        declare: &ExchangeDeclare<'_>,
        alternate: Option<ShortStr>,
        router: Router,
    ) {
        let name = ShortStr::new(declare.name);
        let exchange = Exchange {
            vhost,
            name: name.clone(),
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: declare.arguments.clone(),
            alternate,
            bindings: BTreeSet::new(),
            sources: BTreeMap::new(),
            router,
        };
        let key = self.exchanges.insert_with(|_| exchange);
        if let Some(vhost) = self.vhosts.get_mut(vhost) {
            vhost.exchanges.insert(name, key);
        }
    }

    /// `exchange.declare`, not passive.
    ///
    /// # Errors
    /// 503 for an unknown type; 403 for the default exchange and for a new name under `amq.`; 406 where the exchange is
    /// there with other properties, for an `alternate-exchange` that is no text, and at the limit on exchanges.
    pub(crate) fn declare_exchange(
        &mut self,
        vhost: VhostKey,
        declare: &ExchangeDeclare<'_>,
    ) -> Result<(), Refusal> {
        let Some(router) = Router::new(declare.kind) else {
            let kind = String::from_utf8_lossy(declare.kind);
            return Err(Refusal::command_invalid(format_args!("unknown exchange type '{kind}'")));
        };
        not_default(declare.name)?;
        let host = self.vhost(vhost)?;
        let thing = host.exchange(declare.name);
        if let Some(exchange) = host.exchanges.get(declare.name).and_then(|key| self.exchanges.get(*key)) {
            same(&thing, "type", exchange.router.kind(), router.kind())?;
            same(&thing, "durable", exchange.durable, declare.durable)?;
            same(&thing, "auto_delete", exchange.auto_delete, declare.auto_delete)?;
            same(&thing, "internal", exchange.internal, declare.internal)?;
            return same_argument(&thing, "alternate-exchange", &exchange.arguments, &declare.arguments);
        }
        not_reserved("exchange", declare.name)?;
        let alternate = match declare.arguments.get("alternate-exchange") {
            None => None,
            Some(Value::Text(name)) => Some(ShortStr::new(name.as_bytes())),
            Some(other) => {
                let kind = type_name(other);
                return Err(Refusal::precondition_failed(format_args!(
                    "invalid type '{kind}' for arg 'alternate-exchange' in {thing}"
                )));
            }
        };
        let most = self.settings.max_exchanges;
        if host.exchanges.len() >= most {
            return Err(Refusal::precondition_failed(format_args!(
                "cannot declare {thing}: the limit of {most} exchanges is reached"
            )));
        }
        self.add_exchange(vhost, declare, alternate, router);
        Ok(())
    }

    /// `exchange.declare`, passive.
    ///
    /// # Errors
    /// 404 where it does not exist; 403 for the default exchange.
    pub(crate) fn check_exchange(&self, vhost: VhostKey, name: &[u8]) -> Result<(), Refusal> {
        not_default(name)?;
        self.exchange_key(vhost, name).map(drop)
    }

    /// `exchange.delete`. One that does not exist is no error.
    ///
    /// # Errors
    /// 403 for the default exchange and those under `amq.`; 406 with `if_unused` where a binding starts at it.
    pub(crate) fn delete_exchange(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        if_unused: bool,
    ) -> Result<(), Refusal> {
        not_default(name)?;
        let host = self.vhost(vhost)?;
        let thing = host.exchange(name);
        if name.starts_with(b"amq.") {
            return Err(Refusal::access_refused(format_args!("deletion of system {thing} not allowed")));
        }
        let Some(key) = host.exchanges.get(name).copied() else { return Ok(()) };
        if if_unused && self.exchanges.get(key).is_some_and(|exchange| !exchange.bindings.is_empty()) {
            return Err(Refusal::precondition_failed(format_args!("{thing} in use")));
        }
        self.remove_exchange(key);
        Ok(())
    }

    /// Takes an exchange away with all bindings at both ends, and the exchanges that delete themselves by that.
    pub(super) fn remove_exchange(&mut self, key: ExchangeKey) {
        let Some(mut exchange) = self.exchanges.remove(key) else { return };
        if let Some(vhost) = self.vhosts.get_mut(exchange.vhost) {
            vhost.exchanges.remove(&exchange.name);
            vhost.bindings = vhost.bindings.saturating_sub(exchange.bindings.len());
        }
        for id in std::mem::take(&mut exchange.bindings) {
            self.forget_source(id.target, key);
        }
        self.remove_bindings_to(Target::Exchange(key), exchange.sources.into_keys());
    }

    /// # Errors
    /// 404 where it does not exist.
    pub(super) fn exchange_key(&self, vhost: VhostKey, name: &[u8]) -> Result<ExchangeKey, Refusal> {
        let host = self.vhost(vhost)?;
        let missing = || Refusal::not_found(format_args!("no {}", host.exchange(name)));
        host.exchanges.get(name).copied().ok_or_else(missing)
    }
}

#[cfg(test)]
impl Exchange {
    pub(super) fn for_tests() -> Self {
        Self {
            vhost: VhostKey::MIN,
            name: ShortStr::default(),
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Table::new(),
            alternate: None,
            bindings: BTreeSet::new(),
            sources: BTreeMap::new(),
            router: Router::Fanout(Targets::default()),
        }
    }
}

/// # Errors
/// 403 for the default exchange.
pub(super) fn not_default(name: &[u8]) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// # Errors
/// 403 for a name under `amq.`.
pub(super) fn not_reserved(kind: &str, name: &[u8]) -> Result<(), Refusal> {
    if name.starts_with(b"amq.") {
        let name = String::from_utf8_lossy(name);
        let why = format_args!("{kind} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Refusal::access_refused(why));
    }
    Ok(())
}
