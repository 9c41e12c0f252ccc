//! SaslHandshake (17), versions 0 and 1 (KIP-43, KIP-152).
//!
//! After version 0 the login's messages come without a request around them; after version 1 as SaslAuthenticate.
//! Where no login may begin: ILLEGAL_SASL_STATE. A mechanism that is not served: UNSUPPORTED_SASL_MECHANISM with the
//! list, then the connection is closed.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::security::{Mechanism, Session};
use crate::embedded::machine::Output;

impl Api for SaslHandshakeRequest {
    const SERVED: RangeInclusive<i16> = 0..=1;
    const SHAPE: &'static [Field] = &[always(Shape::Text)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<SaslHandshakeResponse> {
        let illegal = Reply::Now(self.refuse(Code::IllegalSaslState, context.version));
        let Some(state) = cluster.connection(context.connection) else { return Reply::Later };
        if matches!(state.session, Session::Open) {
            return illegal;
        }
        let mechanisms = Mechanism::ALL.map(|mechanism| StrBytes::from_static_str(mechanism.name()));
        let response = SaslHandshakeResponse::default().with_mechanisms(mechanisms.to_vec());
        match Mechanism::from_name(&self.mechanism) {
            Some(mechanism) => {
                if state.session.handle_handshake(mechanism, context.version == 0, context.now) {
                    Reply::Now(response)
                } else {
                    illegal
                }
            }
            None => {
                let refusal = response.with_error_code(Code::UnsupportedSaslMechanism.code());
                cluster.answer::<Self>(context.connection, &refusal);
                cluster.end(context.connection, Output::Close);
                Reply::Later
            }
        }
    }

    fn refuse(&self, code: Code, _version: i16) -> SaslHandshakeResponse {
        SaslHandshakeResponse::default().with_error_code(code.code())
    }
}
