//! A Modbus TCP server with three registers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::plc::{Plc, Registers};

/// Serves while a program runs, or always.
pub async fn serve(plc: Plc, address: SocketAddr, always: bool) {
    let mut running = plc.running();
    loop {
        if !always {
            drop(running.wait_for(Option::is_some).await);
        }
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let mut ended = plc.running();
        let connections = async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(plc.clone(), stream, always));
            }
        };
        tokio::select! {
            () = connections => {}
            _ = ended.wait_for(|program| program.is_none() && !always) => {}
        }
    }
}

async fn connection(plc: Plc, mut stream: TcpStream, always: bool) {
    let mut running = plc.running();
    let answers = async {
        loop {
            let mut head = [0; 7];
            stream.read_exact(&mut head).await?;
            let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
            let mut request = vec![0; length.saturating_sub(1).min(260)];
            stream.read_exact(&mut request).await?;
            let answer = answer(&request, plc.registers());
            let mut reply = head[..4].to_vec();
            reply.extend(u16::try_from(answer.len() + 1).unwrap().to_be_bytes());
            reply.push(head[6]);
            reply.extend(answer);
            stream.write_all(&reply).await?;
        }
    };
    let answers = async {
        let ended: std::io::Result<()> = answers.await;
        drop(ended);
    };
    tokio::select! {
        () = answers => {}
        _ = running.wait_for(|program| program.is_none() && !always) => {}
    }
}

fn answer(request: &[u8], registers: Registers) -> Vec<u8> {
    let [function @ (3 | 4), a, b, c, d] = *request else {
        // Illegal function.
        return vec![request.first().copied().unwrap_or(0) | 0x80, 1];
    };
    let (from, count) = (usize::from(u16::from_be_bytes([a, b])), usize::from(u16::from_be_bytes([c, d])));
    let Some(asked) = registers.get(from..from + count).filter(|asked| !asked.is_empty()) else {
        // Illegal data address.
        return vec![function | 0x80, 2];
    };
    let mut answer = vec![function, u8::try_from(asked.len() * 2).unwrap()];
    answer.extend(asked.iter().flat_map(|register| register.to_be_bytes()));
    answer
}
