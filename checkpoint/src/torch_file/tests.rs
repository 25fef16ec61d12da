//! Files that torch wrote are read bit for bit; hostile and damaged ones are refused.

mod hostile;
mod written;
