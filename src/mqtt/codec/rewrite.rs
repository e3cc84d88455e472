//! A CONNECT passed on with other credentials: MQTT 5.0 §3.1.3.5, §3.1.3.6.
//!
//! All else stays byte for byte: the broker sees the properties, will and client id that the device
//! sent. Only the remaining length, the two credential flags and the two fields are written anew.

use std::fmt;

use thiserror::Error;

use super::connect::{Connect, FIRST_BYTE, Version};
use super::field::{MAX_VARINT, as_text, write_binary, write_varint};

/// What to put into a CONNECT, whether it had the field or not. `None` leaves a field as it is.
///
/// Both may be secrets, so `Debug` shows neither.
#[derive(Clone, Copy, Default)]
pub struct Changes<'a> {
    /// The user name to set.
    pub user_name: Option<&'a str>,
    /// The password to set.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Changes<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Changes")
            .field("sets_user_name", &self.user_name.is_some())
            .field("sets_password", &self.password.is_some())
            .finish()
    }
}

/// A change that a CONNECT cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RewriteError {
    /// The user name holds a character that MQTT strings may not.
    #[error("the user name holds a character that MQTT does not allow")]
    UserNameText,
    /// The field is over 65 535 bytes.
    #[error("the {field} is over 65535 bytes")]
    FieldTooLong {
        /// Which field.
        field: &'static str,
    },
    /// The packet would be over MQTT's 256 MiB.
    #[error("the packet is over what MQTT allows")]
    PacketTooLarge,
}

impl Connect<'_> {
    /// The same CONNECT with `changes` made.
    ///
    /// MQTT 3.x has no password without a user name (\[MQTT-3.1.2-22\] of 3.1.1), so there an
    /// absent user name becomes an empty one, which is legal. The bytes hold a password: wipe or
    /// drop them once they are sent.
    ///
    /// # Errors
    ///
    /// When a value cannot stand in a CONNECT.
    pub fn rewrite(&self, changes: &Changes<'_>) -> Result<Vec<u8>, RewriteError> {
        let password = changes.password.or(self.password());
        let user_name = match changes.user_name.or(self.user_name()) {
            None if password.is_some() && self.version() < Version::V5 => Some(""),
            user_name => user_name,
        };
        let user_name = user_name.map(str::as_bytes);
        check(user_name, password)?;
        let remaining = self.remaining_length(user_name, password)?;

        let mut packet = Vec::with_capacity(5 + remaining as usize);
        packet.push(FIRST_BYTE);
        write_varint(&mut packet, remaining);
        packet.extend_from_slice(self.name_and_level);
        packet.push(
            self.flags
                .with_credentials(user_name.is_some(), password.is_some())
                .0,
        );
        packet.extend_from_slice(self.between);
        for field in [user_name, password].into_iter().flatten() {
            write_binary(&mut packet, field);
        }
        Ok(packet)
    }

    fn remaining_length(
        &self,
        user_name: Option<&[u8]>,
        password: Option<&[u8]>,
    ) -> Result<u32, RewriteError> {
        let credentials: usize = [user_name, password]
            .into_iter()
            .flatten()
            .map(|field| 2 + field.len())
            .sum();
        let length = self.name_and_level.len() + 1 + self.between.len() + credentials;
        u32::try_from(length)
            .ok()
            .filter(|&length| length <= MAX_VARINT)
            .ok_or(RewriteError::PacketTooLarge)
    }
}

fn check(user_name: Option<&[u8]>, password: Option<&[u8]>) -> Result<(), RewriteError> {
    let fits = |field: Option<&[u8]>| field.is_none_or(|field| u16::try_from(field.len()).is_ok());
    if !fits(user_name) {
        return Err(RewriteError::FieldTooLong { field: "user name" });
    }
    if !fits(password) {
        return Err(RewriteError::FieldTooLong { field: "password" });
    }
    if user_name.is_some_and(|name| as_text(name).is_none()) {
        return Err(RewriteError::UserNameText);
    }
    Ok(())
}
